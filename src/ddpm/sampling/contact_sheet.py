"""The picture that shows a data set: a row a class with its name, or a grid where there are no classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ddpm.data.images import DataSet, ImageSet
from ddpm.sampling.captions import CAPTION, caption, legible, text_width
from ddpm.sampling.figures import SPREAD, enlarged, grid, to_uint8, with_condition

ROWS = 20
"""Classes that have a row; the others are counted."""

IN_A_ROW = {"to train on": 12, "held out": 3}
"""Images of a class, by what they are for."""

IN_A_GRID = 64
"""Images that are shown where there are no classes."""

THUMBNAIL = 128
"""Images with a longer side than this many pixels are reduced, by a whole factor."""

MOST_NAME = 180
"""Pixels that the names of classes may take; longer ones are shortened."""

PADDING, GAP, BACKGROUND = 2, 16, 64


class _Part(NamedTuple):
    """Images of a data set that are for one purpose.

    Attributes:
        title: what they are for.
        images: all of them.
        columns: how many of each class are shown.
        channels: of x_0; those behind them are of the image that each is conditioned on.
    """

    title: str
    images: ImageSet
    columns: int
    channels: int

    def some(self, most: int, indices: np.ndarray | None = None) -> np.ndarray:
        """Up to `most` images, evenly from all over those at `indices`, with their conditions to the right:
        uint8 [K, C, H, W].
        """
        found = _reduced(_some(self.images, most, indices))
        if found.shape[1] == self.channels:
            return found
        parts = (torch.from_numpy(part) for part in (found[:, : self.channels], found[:, self.channels :]))
        return with_condition(*parts).numpy()


def contact_sheet(data_set: DataSet) -> np.ndarray | None:
    """Images from all over a data set, with those that they are conditioned on; of a stream, of those that
    are held out. Of latents the channels are shown.

    Returns:
        uint8 [height, width, 3]; None where there is no image to show.
    """
    channels, *window = data_set.image_shape
    parts = [
        _Part(title, images.centre((window[0], window[1])), columns, channels)
        for (title, columns), images in zip(
            IN_A_ROW.items(), (data_set.train, data_set.validation), strict=True
        )
        if isinstance(images, ImageSet) and len(images)
    ]
    if not parts:
        return None
    if data_set.classes is None or any(part.images.labels is None for part in parts):
        return grid(torch.from_numpy(parts[0].some(IN_A_GRID)))
    return _rows(parts, data_set.classes)


def _rows(parts: Sequence[_Part], classes: Sequence[str]) -> np.ndarray:
    """A row a class: its name, how many images it has, and some of them, part by part."""
    names = legible([str(name) for name in classes[:ROWS]])
    counts = [_counts(part.images, len(classes)) for part in parts]
    notes = [" + ".join(f"{int(count[label]):,}" for count in counts) for label in range(len(names))]
    left = min(MOST_NAME, max(text_width(text) for text in [*names, *notes]) + 2 * PADDING)
    height, width = enlarged(torch.from_numpy(parts[0].some(1))).shape[1:3]
    pitch = max(height, 2 * CAPTION) + PADDING
    starts = np.cumsum([left + PADDING, *(part.columns * (width + PADDING) + GAP for part in parts)])
    bottom = CAPTION + PADDING + len(names) * pitch
    more = len(classes) - len(names)
    shape = (bottom + (CAPTION + PADDING if more else 0), int(starts[-1]) - GAP, 3)
    canvas = np.full(shape, BACKGROUND, np.uint8)

    def write(text: str, top: int, first: int, columns: int) -> None:
        canvas[top : top + CAPTION, first : first + columns] = caption(text, columns, BACKGROUND, "l")

    for label, (name, note) in enumerate(zip(names, notes, strict=True)):
        top = CAPTION + PADDING + label * pitch
        write(name, top, 0, left)
        write(note, top + CAPTION, 0, left)
        for part, start in zip(parts, starts, strict=False):
            assert part.images.labels is not None
            mine = np.flatnonzero(part.images.labels == label)
            cells = enlarged(torch.from_numpy(part.some(part.columns, mine)))
            for column, cell in enumerate(cells):
                first = int(start) + column * (width + PADDING)
                canvas[top : top + height, first : first + width] = cell
    for part, start in zip(parts, starts, strict=False):
        write(part.title, 0, int(start), part.columns * (width + PADDING) - PADDING)
    if more:
        write(f"and {more:,} more class{'es' if more > 1 else ''}", bottom, 0, shape[1])
    return canvas


def _counts(images: ImageSet, num_classes: int) -> np.ndarray:
    assert images.labels is not None
    return np.bincount(images.labels, minlength=num_classes)


def _some(images: ImageSet, most: int, indices: np.ndarray | None = None) -> np.ndarray:
    """Up to `most` images, evenly from all over those at `indices`: uint8 [K, C, H, W]."""
    chosen = np.arange(len(images)) if indices is None else indices
    n = min(most, len(chosen))
    found = images.copy(chosen[np.arange(n) * len(chosen) // max(1, n)]).images
    return found if found.dtype == np.uint8 else to_uint8(torch.from_numpy(found) / SPREAD).numpy()


def _reduced(images: np.ndarray) -> np.ndarray:
    """Images uint8 [K, C, h, w] with sides of at most `THUMBNAIL`, each pixel the mean of a square."""
    factor = -(-max(images.shape[2:]) // THUMBNAIL)
    if factor == 1 or not len(images):
        return images
    return np.stack([[np.asarray(Image.fromarray(plane).reduce(factor)) for plane in one] for one in images])
