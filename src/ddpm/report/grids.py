"""Grids of samples as a page shows them: files of a run, encoded anew and small enough together.

A picture may be a stranger's: its size is known before it is decoded, nothing but its pixels reaches the
page, and one that lies outside the run's directory is not read.
"""

import base64
import io
import re
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ddpm import bounded
from ddpm.errors import UsageError

FOLDER = "samples"
NAME = re.compile(r"step_([0-9]{1,18})\.png")

MOST_BYTES = 1 << 25
"""Of a file."""

MOST_PIXELS = 1 << 24
"""Of a picture: 4,096 by 4,096."""

MOST_GRIDS = 100
"""Of a run; of more, some from all over the run, with the first and the last."""

MB = 1_000_000
WIDEST, HIGHEST = 1600, 4096
"""Pixels; larger pictures are reduced to these."""

BACKGROUND = 64
"""The grey between the images of a grid."""

LOWEST_ROW = 20
"""Pixels: a row of images is at least as high, and captions are lower."""

LOSSY = ((90, 1.0), (75, 1.0), (60, 0.75), (50, 0.5), (40, 0.33), (30, 0.2))
"""Quality of WebP, and scale, from the best to the smallest, where a picture has no room as it is."""


@dataclass(frozen=True)
class Grid:
    """A picture of a run.

    Attributes:
        step: completed optimizer steps.
        width, height: in pixels, of what is embedded.
        row: height of its first row of images, in the same pixels.
        webp: base64 of the file.
        is_exact: whether every pixel is as it was.
    """

    step: int
    width: int
    height: int
    row: int
    webp: str
    is_exact: bool

    @property
    def uri(self) -> str:
        return f"data:image/webp;base64,{self.webp}"


def budget(runs: int) -> int:
    """Bytes that all pictures of a page may take, as text: less than 10 MB for 8 runs, 33 MB at most."""
    return int(min(6 + 0.45 * runs, 33) * MB)


def files(directory: Path) -> list[tuple[int, Path]]:
    """The grids that a run has drawn, by step: at most `MOST_GRIDS`."""
    try:
        inside = (directory / FOLDER).resolve()
        if not inside.is_relative_to(directory.resolve()):
            return []
        found = {
            int(match[1]): path
            for path in inside.iterdir()
            if (match := NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()
        }
    except OSError:
        return []
    ordered = sorted(found.items())
    if len(ordered) <= MOST_GRIDS:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (MOST_GRIDS - 1))] for i in range(MOST_GRIDS)]


def grids(directories: Sequence[Path]) -> list[tuple[list[Grid], list[str]]]:
    """The grids of each run, and what could not be read, in words.

    Pictures are exact where there is room for it. Where there is not, each has as much as any other.
    """
    left = budget(len(directories))
    listed = [files(directory) for directory in directories]
    number = sum(map(len, listed))
    if not number:
        return [([], []) for _ in directories]
    share = left // number
    tasks = [(step, path) for found in listed for step, path in found]
    with ThreadPoolExecutor() as pool:  # Pillow computes beside Python
        done = iter(list(pool.map(lambda task: _read(task[0], task[1], share), tasks)))
    result: list[tuple[list[Grid], list[str]]] = []
    for found in listed:
        read = [next(done) for _ in found]
        result.append(
            ([one for one in read if isinstance(one, Grid)], [one for one in read if isinstance(one, str)])
        )
    return result


def _read(step: int, path: Path, most_bytes: int) -> Grid | str:
    """A picture of at most so many bytes of text, or why it cannot be shown."""
    try:
        contents = bounded.contents(path, MOST_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents), formats=["PNG"]) as opened:
                if opened.width * opened.height > MOST_PIXELS:
                    return f"{path.name}: has {opened.width} x {opened.height} pixels, more than a page shows"
                picture = opened.convert("RGB")
    except UsageError as error:
        return str(error)
    except Image.DecompressionBombError:
        return f"{path.name}: has more pixels than a page shows"
    except Exception as error:  # whatever Pillow makes of a damaged file
        return f"{path.name}: cannot be read, it is no PNG ({type(error).__name__})"
    row = first_row(np.asarray(picture))
    scale = min(1.0, WIDEST / picture.width, HIGHEST / picture.height)
    is_exact = scale == 1.0
    webp = _encoded(picture, scale, None) if is_exact else _encoded(picture, scale, LOSSY[0][0])
    for quality, smaller in LOSSY:
        if len(webp) * 4 / 3 <= most_bytes:
            break
        is_exact = False
        scale = min(1.0, WIDEST / picture.width, HIGHEST / picture.height) * smaller
        webp = _encoded(picture, scale, quality)
    width, height = _size(picture, scale)
    shown_row = max(1, min(height, round(row * scale)))
    return Grid(step, width, height, shown_row, base64.b64encode(webp).decode(), is_exact)


def _encoded(picture: Image.Image, scale: float, quality: int | None) -> bytes:
    """A file of WebP; exact where no quality is given."""
    file = io.BytesIO()
    if (size := _size(picture, scale)) != picture.size:
        picture = picture.resize(size, Image.Resampling.BOX)
    if quality is None:
        picture.save(file, "WEBP", lossless=True, quality=20, method=2)
    else:
        picture.save(file, "WEBP", quality=quality, method=2)
    return file.getvalue()


def _size(picture: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale))


def first_row(pixels: np.ndarray) -> int:
    """How high the first row of images is, with its captions and its margins: where the first line of
    background below it ends. All of the picture where it shows no such line.

    Args:
        pixels: uint8 [height, width, 3].
    """
    empty = (pixels == BACKGROUND).all(axis=(1, 2))
    filled = 0
    for y, is_empty in enumerate(empty):
        if not is_empty:
            filled += 1
        elif filled >= LOWEST_ROW:
            return y + 2 if y + 2 < len(empty) else len(empty)
        else:
            filled = 0
    return len(empty)
