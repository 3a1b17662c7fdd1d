"""How every figure looks: its fonts, colours and lines, on white or on dark."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

from PIL.ImageFont import FreeTypeFont

from ddpm.sampling.captions import font_for

DARK, LIGHT = "#0d1117", "#ffffff"
"""What figures stand on."""

ON_LIGHT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colours that people with any colour vision tell apart (Okabe and Ito 2008), those that show on white."""

ON_DARK = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#ffffff")
"""Those that show on dark."""

HAIRLINE = "#8b8b8b"
"""Of what frames an image on either."""

LINES = ("-", "--", "-.", ":")
"""Of curves, which lie on each other where runs agree."""

SMALL, NORMAL = 8.0, 9.0
"""Sizes of letters in points, as captions of papers have them."""


@contextmanager
def styled(*, dark: bool = False, texts: Sequence[str] = ()) -> Iterator[None]:
    """Make and write figures in here: what a figure looks like is settled when it is made and when it is
    written.

    Args:
        dark: for a dark page.
        texts: in any script, such as names of classes, that the figures shall show.
    """
    import matplotlib  # a second that nothing else needs
    from cycler import cycler

    ink, paper = ("#e6edf3", DARK) if dark else ("#000000", LIGHT)
    others = _families(texts)
    settings: Any = {
        "font.family": ["STIXGeneral", "DejaVu Sans", *others],
        "mathtext.fontset": "stix",
        "font.size": NORMAL,
        "axes.titlesize": NORMAL,
        "axes.labelsize": NORMAL,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "legend.fontsize": SMALL,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "xtick.minor.width": 0.4,
        "ytick.minor.width": 0.4,
        "lines.linewidth": 1.3,
        "axes.prop_cycle": cycler(color=ON_DARK if dark else ON_LIGHT),
        "figure.facecolor": paper,
        "axes.facecolor": paper,
        "savefig.facecolor": paper,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink
        ),
        # letters of OpenType fonts, as of most Chinese ones, are shapes in type 3 and broken in type 42
        "pdf.fonttype": 3 if others else 42,
        "svg.fonttype": "path",
        "svg.hashsalt": "ddpm",  # the same figure is the same file
    }
    with matplotlib.rc_context(settings):
        yield


def _families(texts: Sequence[str]) -> list[str]:
    """Names of fonts of the system that have letters of these texts which matplotlib's own fonts lack."""
    from matplotlib import font_manager

    own = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    found: list[str] = []
    for text in texts:
        if all(ord(letter) in own for letter in text):
            continue
        font = font_for(text)
        path = getattr(font, "path", None)  # Pillow's own font lies in no file
        if not isinstance(font, FreeTypeFont) or not isinstance(path, str | PathLike):
            continue
        font_manager.fontManager.addfont(path)
        face = font.getname()[0]
        known = {one.name for one in font_manager.fontManager.ttflist}  # before 3.11 of the first face alone
        found.append(face if face in known else font_manager.FontProperties(fname=path).get_name())
    return list(dict.fromkeys(found))
