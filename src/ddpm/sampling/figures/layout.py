"""Rows of images with what they are, laid out in inches so that every pixel of an image is a whole number of
pixels of the file.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from ddpm.sampling.figures import enlarged, size_shown
from ddpm.sampling.figures.style import HAIRLINE, NORMAL, SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.text import Text

GAP = 0.03
"""Inches between images that belong together."""

BETWEEN = 0.11
"""Inches between groups of rows."""

LINE = 0.17
"""Inches that a line of text takes."""

SPACE = 0.08
"""Inches between text and images."""

MARGIN = 0.04
"""Inches at the edge of the figure."""

MOST_LETTERS = 20
"""Of a name; the middle of a longer one is left out."""


class Group(NamedTuple):
    """Rows that belong together.

    Attributes:
        name: stands before them, centred; "" for none.
        rows: of each its symbol, "" for none, and its images, uint8 [K, C, H, W]; a row may have fewer than
            there are columns.
    """

    name: str
    rows: Sequence[tuple[str, Tensor]]


class Sheet:
    """A figure whose coordinates are inches from its top left corner.

    Args:
        width, height: of the figure, in inches.
        dpi: pixels an inch, to which images are fitted.

    Attributes:
        figure: matplotlib's.
        images: those that were placed, in this order.
    """

    def __init__(self, width: float, height: float, dpi: float):
        from matplotlib.figure import Figure

        self.dpi = dpi
        self.figure: Figure = Figure(figsize=(snapped(width, dpi), snapped(height, dpi)), dpi=dpi)
        width, height = self.figure.get_size_inches()
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self._axes.set_axis_off()
        self.images: list[AxesImage] = []

    def place(self, image: np.ndarray, left: float, top: float, size: tuple[float, float]) -> "AxesImage":
        """Put an image uint8 [H, W, 3] into a box of (height, width) inches."""
        height, width = size
        left, top = snapped(left, self.dpi), snapped(top, self.dpi)
        placed = self._axes.imshow(
            image,
            extent=(left, left + width, top + height, top),
            interpolation="nearest",
            aspect="auto",
            resample=False,
        )
        self._axes.set(xlim=(0, self.figure.get_figwidth()), ylim=(self.figure.get_figheight(), 0))
        framed(self._axes, left, top, size)
        self.images.append(placed)
        return placed

    def write(
        self, text: str, x: float, y: float, *, ha: str = "center", va: str = "center", **look: Any
    ) -> "Text":
        """Put a text at a point."""
        return self._axes.text(x, y, text, ha=ha, va=va, **{"fontsize": NORMAL, **look})

    def line(self, x: Sequence[float], y: Sequence[float], **look: Any) -> None:
        """Draw a line through points."""
        self._axes.plot(x, y, **look)


def framed(axes: "Axes", left: float, top: float, size: tuple[float, float]) -> None:
    """Draw a hairline around an image, whose own edge may have the colour of the page."""
    from matplotlib.patches import Rectangle

    height, width = size
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=HAIRLINE, linewidth=0.35))


def snapped(inches: float, dpi: float) -> float:
    """A length of whole pixels."""
    return round(inches * dpi) / dpi


def cell_size(room: float, image_shape: Sequence[int], dpi: float) -> tuple[float, float]:
    """(height, width) in inches of an image in this much room: a whole number of pixels for each of its own,
    where it has no more than the room.

    Args:
        room: inches that its width may take.
        image_shape: (channels, height, width) of the image.
        dpi: pixels an inch.
    """
    rows, columns = size_shown(image_shape)
    pixels = int(room * dpi + 1e-6)
    pixels -= pixels % columns if pixels >= columns else 0
    pixels = max(1, pixels)
    return round(pixels * rows / columns) / dpi, pixels / dpi


def text_inches(text: str, size: float = NORMAL) -> float:
    """The width of a text, which may hold mathematics."""
    if not text:
        return 0.0
    from matplotlib.textpath import TextPath

    return float(TextPath((0, 0), text, size=size).get_extents().width) / 72


def shortened(name: str) -> str:
    """A name without as much of its middle as is too long, and no mathematics."""
    half = MOST_LETTERS // 2
    name = name if len(name) <= MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"
    return name.replace("$", r"\$")


def table(
    groups: Sequence[Group],
    headings: Sequence[tuple[str, Sequence[str]]],
    *,
    width: float,
    dpi: float,
) -> Sheet:
    """Images in rows and columns.

    Args:
        groups: of rows.
        headings: lines above the columns: what stands before the line, and its text for each column.
        width: of the figure, in inches, or a little less.
        dpi: pixels an inch.
    """
    names = [shortened(group.name) for group in groups]
    columns = max(len(images) for group in groups for _, images in group.rows)
    shape = groups[0].rows[0][1].shape[1:]
    names_take = max(map(text_inches, names))
    symbols = [symbol for group in groups for symbol, _ in group.rows] + [symbol for symbol, _ in headings]
    symbols_take = max(map(text_inches, symbols))
    left = sum(part + SPACE for part in (names_take, symbols_take) if part) + MARGIN
    room = (width - left - MARGIN - GAP * (columns - 1)) / columns
    size = height, cell = cell_size(room, shape, dpi)
    pitch = snapped(cell + GAP, dpi), snapped(height + GAP, dpi)
    rows = sum(len(group.rows) for group in groups)
    top = LINE * len(headings) + 0.06
    apart = BETWEEN if any(len(group.rows) > 1 for group in groups) else 0.0
    bottom = top + rows * pitch[1] + apart * (len(groups) - 1)
    sheet = Sheet(left + columns * pitch[0] - GAP + MARGIN, bottom - GAP + MARGIN, dpi)
    for line, (symbol, texts) in enumerate(headings):
        y = LINE * (line + 0.5) + 0.03
        sheet.write(symbol, left - SPACE, y, ha="right")
        for column, text in enumerate(texts):
            sheet.write(text, left + column * pitch[0] + cell / 2, y, fontsize=SMALL)
    y = top
    for name, group in zip(names, groups, strict=True):
        middle = y + (len(group.rows) * pitch[1] - GAP) / 2
        sheet.write(name, names_take + MARGIN, middle, ha="right")
        for symbol, images in group.rows:
            sheet.write(symbol, left - SPACE, y + height / 2, ha="right")
            for column, image in enumerate(pixels(images)):
                sheet.place(image, left + column * pitch[0], y, size)
            y += pitch[1]
        y += apart
    return sheet


def pixels(images: Tensor) -> list[np.ndarray]:
    """Images as they are placed, uint8 [h, w, 3] each, of uint8 [N, C, H, W]. Small ones are enlarged: what
    shows a PDF would blur them otherwise.
    """
    return list(enlarged(images)) if len(images) else []


def at(timesteps: Sequence[int]) -> list[str]:
    """Timesteps as headings."""
    return [f"{t:,}" if t >= 10_000 else str(t) for t in timesteps]


def decimal(value: float) -> str:
    """A number in [0, 1] that may be near either end, as a heading."""
    if value == 0 or value == 1:
        return f"{value:.0f}"
    if value < 0.01:
        digits, _, power = f"{value:.0e}".partition("e")
        return rf"${digits}\cdot 10^{{{int(power)}}}$"
    return f"{value:.4f}" if value > 0.99 else f"{value:.2f}"
