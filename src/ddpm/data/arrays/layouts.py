"""How the numbers of many images lie in one array."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

CHANNELS = (1, 3, 4)

USUAL = ("[N, H, W]", "[N, H, W, C]")
MATLAB_GREY = "[H, W, N]"
"""Taken only where the number of labels says so: most arrays of rank 3 could be it."""

LEAST_SIDE = 2
"""Of an image in a row of numbers: a row of one number is none."""


@dataclass(frozen=True)
class Layout:
    """One way to take an array for images.

    Attributes:
        name: the axes, as in `[N, H, W, C]`.
        axis: that counts the images, 0 or -1.
        count: of the images.
        shape: (height, width, channels) of each.
        turned: from images with that axis first to [K, H, W, C].
    """

    name: str
    axis: int
    count: int
    shape: tuple[int, int, int]
    turned: Callable[[np.ndarray], np.ndarray]


def layouts(shape: tuple[int, ...], channels: int | None = None) -> list[Layout]:
    """Every layout that the shape of an array allows, the likeliest first.

    Channels are 1, 3 or 4, else fewer than the pixels of either side, and come last rather than first; images
    come first rather than last. A row of numbers is a square: of one channel, or of three, one after the
    other.

    Args:
        shape: of the array.
        channels: that images have; None where this is not known.
    """
    if 0 in shape:
        return []
    found = []
    if len(shape) == 4:
        a, b, c, d = shape

        def are_channels(n: int, *sides: int) -> bool:
            if channels is not None:
                return n == channels
            usual = any(m in CHANNELS for m in (b, c, d))
            return n in CHANNELS if usual else n < min(sides)

        if are_channels(d, b, c):
            found.append(Layout("[N, H, W, C]", 0, a, (b, c, d), lambda images: images))
        if are_channels(b, c, d):
            found.append(Layout("[N, C, H, W]", 0, a, (c, d, b), lambda images: images.transpose(0, 2, 3, 1)))
        if are_channels(c, a, b):
            found.append(Layout("[H, W, C, N]", -1, d, (a, b, c), lambda images: images))
    elif len(shape) == 3:
        a, b, c = shape
        if c not in CHANNELS:  # else it is one image
            found.append(Layout("[N, H, W]", 0, a, (b, c, 1), lambda images: images[..., None]))
        found.append(Layout(MATLAB_GREY, -1, c, (a, b, 1), lambda images: images[..., None]))
    elif len(shape) == 2:
        a, b = shape
        found += [*_rows("[N, {}]", 0, a, b), *_rows("[{}, N]", -1, b, a)]
    return found


def layout_of(shape: tuple[int, ...], counts: Collection[int], channels: int | None = None) -> Layout | None:
    """The likeliest layout, of those that hold as many images as there are labels if any does.

    Args:
        shape: of the array.
        counts: how many labels there may be; empty where this is not known.
        channels: that images have; None where this is not known.
    """
    possible = [one for one in layouts(shape, channels) if one.name != MATLAB_GREY or one.count in counts]
    return next((one for one in possible if one.count in counts), next(iter(possible), None))


def is_plain(shape: tuple[int, ...], layout: Layout, channels: int | None = None) -> bool:
    """Whether nothing needs to be said about a layout: it is the usual one, and no other is possible."""
    others = [one for one in layouts(shape, channels) if one.name not in (layout.name, MATLAB_GREY)]
    return layout.name in USUAL and not others


def _rows(name: str, axis: int, count: int, numbers: int) -> list[Layout]:
    """The layout of rows of numbers that are the pixels of a square, if they can be."""
    for channels, inner in ((1, "H x W"), (3, "C x H x W")):
        side = math.isqrt(numbers // channels)
        if side >= LEAST_SIDE and channels * side * side == numbers:
            turned = partial(_squares, channels=channels, side=side)
            return [Layout(name.format(inner), axis, count, (side, side, channels), turned)]
    return []


def _squares(rows: np.ndarray, *, channels: int, side: int) -> np.ndarray:
    return rows.reshape(-1, channels, side, side).transpose(0, 2, 3, 1)
