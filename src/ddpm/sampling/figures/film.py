"""An animation of images that change with t: blocks of them above each other, under the t they are at."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ddpm.sampling.figures.layout import GAP, LINE, SPACE, Sheet, cell_size, pixels, snapped, text_inches

MOST_COLUMNS = 10
"""Images beside each other."""


class Moment(NamedTuple):
    """What a frame shows.

    Attributes:
        left, right: what stands above the images.
        blocks: of each its images, uint8 [N, C, H, W]; as many at every moment.
    """

    left: str
    right: str
    blocks: Sequence[Tensor]


class Film:
    """Frames, drawn one at a time.

    Args:
        moments: at least one.
        symbols: what stands before each block.
        width: inches.
        dpi: pixels an inch.
    """

    def __init__(self, moments: Sequence[Moment], symbols: Sequence[str], *, width: float, dpi: float):
        self.moments = moments
        self.symbols = symbols
        self.width = width
        self.dpi = dpi

    def __len__(self) -> int:
        return len(self.moments)

    def frames(self) -> Iterator[np.ndarray]:
        """Of all moments: uint8 [height, width, 3] each, of even sides, as films have them."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        first = self.moments[0].blocks
        n, shape = len(first[0]), first[0].shape[1:]
        columns = math.ceil(n / math.ceil(n / MOST_COLUMNS))
        rows = math.ceil(n / columns)
        left = max(map(text_inches, self.symbols)) + 2 * SPACE
        size = cell_size((self.width - left - SPACE) / columns - GAP, shape, self.dpi)
        pitch = snapped(size[0] + GAP, self.dpi), snapped(size[1] + GAP, self.dpi)
        block = rows * pitch[0] + SPACE
        top = 1.5 * LINE
        sheet = Sheet(left + columns * pitch[1] + SPACE, top + len(first) * block, self.dpi)
        for b, images in enumerate(first):
            sheet.write(self.symbols[b], left - SPACE, top + b * block + (block - SPACE) / 2, ha="right")
            for i, image in enumerate(pixels(images)):
                y, x = divmod(i, columns)
                sheet.place(image, left + x * pitch[1], top + b * block + y * pitch[0], size)
        texts = [
            sheet.write("", left, top / 2, ha="left"),
            sheet.write("", left + columns * pitch[1] - GAP, top / 2, ha="right"),
        ]
        canvas = FigureCanvasAgg(sheet.figure)
        for moment in self.moments:
            for text, words in zip(texts, (moment.left, moment.right), strict=True):
                text.set_text(words)
            shown = (image for images in moment.blocks for image in pixels(images))
            for placed, image in zip(sheet.images, shown, strict=True):
                placed.set_data(image)
            canvas.draw()
            drawn = np.asarray(canvas.buffer_rgba())[..., :3]
            yield np.pad(drawn, ((0, len(drawn) % 2), (0, drawn.shape[1] % 2), (0, 0)), mode="edge")
