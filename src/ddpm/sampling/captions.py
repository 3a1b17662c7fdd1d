"""Captions of images: a line of text in a font of the system that has its letters."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddpm.data.skipped import printable

log = logging.getLogger(__name__)

CAPTION = 14
"""Height of a caption in pixels."""

SIZE = CAPTION - 3
"""Of its letters."""

FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf",
    # Chinese, Japanese, Korean: Linux, macOS, Windows
    "NotoSansCJK-Regular.ttc", "NotoSansCJK-Regular.otf", "NotoSansCJKsc-Regular.otf",
    "NotoSansSC-Regular.otf", "NotoSansSC-Regular.ttf", "SourceHanSansSC-Regular.otf",
    "SourceHanSansCN-Regular.otf", "SourceHanSans.ttc", "SourceHanSans-Regular.ttc",
    "NotoSansCJK-VF.otf.ttc", "NotoSansCJK-VF.ttf.ttc", "NotoSansCJKsc-VF.otf", "NotoSansCJKsc-VF.ttf",
    "NotoSansSC[wght].ttf", "NotoSansSC-VF.ttf", "NotoSansSC-VariableFont_wght.ttf",
    "NotoSerifCJK-Regular.ttc", "NotoSerifCJKsc-Regular.otf", "NotoSerifSC-Regular.otf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf", "uming.ttc",
    "PingFang.ttc", "Hiragino Sans GB.ttc", "STHeiti Light.ttc", "AppleSDGothicNeo.ttc", "Arial Unicode.ttf",
    "msyh.ttc", "msyh.ttf", "Deng.ttf", "simhei.ttf", "simsun.ttc", "YuGothR.ttc", "meiryo.ttc", "malgun.ttf",
    # other scripts
    "Nirmala.ttc", "Nirmala.ttf", "LeelawUI.ttf", "segoeui.ttf", "Arial.ttf", "FreeSans.ttf", "unifont.otf",
    "unifont.ttf",
)  # fmt: skip
"""Files that are looked for, in this order, where Pillow's own font, which has little beyond ASCII, lacks a
letter. All others come after them."""

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")

BOXES = "lastresort"
"""How a font is called that has a box for every letter."""

SIMPLIFIED = "SC"
"""What the family of a face says that has the shapes of Chinese letters, where a file holds several, the
Japanese one first.
"""

DIRECTORIES = (
    "~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts",
    "~/Library/Fonts", "/Library/Fonts", "/System/Library/Fonts",
    "$LOCALAPPDATA/Microsoft/Windows/Fonts", "$WINDIR/Fonts",
)  # fmt: skip
"""Where Linux, macOS and Windows keep fonts."""

MOST_FACES = 64
"""Of a file that are looked at."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def caption(
    text: str, width: int, background: int, align: Literal["l", "m"] = "m", *, factor: int = 1
) -> np.ndarray:
    """White text on grey, shortened to fit: uint8 [factor CAPTION, width, 3].

    Args:
        text: of which control characters are written out, so that it is one line.
        width: in pixels.
        background: its grey.
        align: l at the left, m in the middle.
        factor: by which it is larger, in a picture that is seen reduced.
    """
    text = printable(text)
    font = _enlarged(font_for(text) or _pillows(), factor)
    strip = Image.new("RGB", (width, factor * CAPTION), (background,) * 3)
    at = (width / 2 if align == "m" else 1, factor * CAPTION / 2)
    ImageDraw.Draw(strip).text(
        at, _fitted(text, font, width - 2), fill="white", font=font, anchor=f"{align}m"
    )
    return np.asarray(strip)


@cache
def _enlarged(font: Font, factor: int) -> Font:
    if factor == 1 or not isinstance(font, ImageFont.FreeTypeFont):
        return font
    larger = font.font_variant(size=factor * SIZE)
    with suppress(OSError, NotImplementedError, ValueError):  # as in `_load`
        larger.set_variation_by_name("Regular")
    return larger


def text_width(text: str) -> int:
    """Pixels that a caption needs for a text."""
    text = printable(text)
    return math.ceil((font_for(text) or _pillows()).getlength(text)) + 2


def _fitted(text: str, font: Font, width: int) -> str:
    """A text without as much of its middle as does not fit: long names often differ at their ends alone."""
    kept, shown = len(text), text
    while shown and font.getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}" if kept > 0 else ""
    return shown


def legible(classes: Sequence[str]) -> list[str]:
    """The names of classes as a caption can show them: a class is its number where no font has its letters.

    The log says so, once for the same classes.
    """
    return list(_legible(tuple(map(printable, classes))))


@cache
def _legible(classes: tuple[str, ...]) -> tuple[str, ...]:
    lost = [name for name in classes if font_for(name) is None]
    if lost:
        log.warning(
            "no font of this system has the letters of %s: grids show the number of such a class instead; "
            "install a font that has them (for Chinese as by `apt install fonts-noto-cjk`), or copy one into "
            "~/.fonts",
            ", ".join([*lost[:3], "..."] if len(lost) > 3 else lost),
        )
    return tuple(str(number) if name in lost else name for number, name in enumerate(classes))


@cache
def font_for(text: str) -> Font | None:
    """The first font that has every letter of a text; None where there is none."""
    return next((font for font in _fonts() if all(_has(font, letter) for letter in {*text} - {" "})), None)


def _fonts() -> Iterator[Font]:
    yield _pillows()
    files = _files()
    first = [name.lower() for name in FONTS]
    others = [name for name in files if name.endswith(SUFFIXES) and not name.startswith(BOXES)]
    for name in [*first, *sorted(others, key=lambda name: ("regular" not in name, name))]:
        if name in files and (font := _load(files[name])) is not None:
            yield font


@cache
def _pillows() -> Font:
    return ImageFont.load_default(SIZE)


@cache
def _load(path: Path) -> Font | None:
    try:
        font = ImageFont.truetype(path, SIZE, _face(path))
    except (OSError, ValueError):  # damaged, or of a kind that FreeType does not read
        return None
    with suppress(OSError, NotImplementedError, ValueError):  # of one weight, or where Pillow cannot choose
        font.set_variation_by_name("Regular")  # else some are as thin as a font can be
    return font


def _face(path: Path) -> int:
    """The number of the face in a file that is drawn with."""
    if path.suffix.lower() not in (".ttc", ".otc"):
        return 0
    for number in range(MOST_FACES):
        try:
            family = ImageFont.truetype(path, SIZE, number).getname()[0] or ""
        except OSError:  # there are no more
            break
        if SIMPLIFIED in family.split():
            return number
    return 0


@cache
def _files() -> dict[str, Path]:
    """Every font file of the system by its name in small letters."""
    found: dict[str, Path] = {}
    for directory in [*DIRECTORIES, *_of_matplotlib()]:
        for parent, _, names in os.walk(os.path.expanduser(os.path.expandvars(directory))):
            for name in names:
                found.setdefault(name.lower(), Path(parent, name))
    return found


def _of_matplotlib() -> list[str]:
    """Where matplotlib, which is not imported for it, keeps a font of all European letters."""
    spec = find_spec("matplotlib")
    return [] if spec is None or not spec.origin else [f"{Path(spec.origin).parent}/mpl-data/fonts/ttf"]


def _has(font: Font, letter: str) -> bool:
    """Whether a font draws something else for a letter than for a character that no font has."""
    drawn, missing = font.getmask(letter), font.getmask("\uffff")
    return (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))
