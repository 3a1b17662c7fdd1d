"""The part of a picture that is drawn anew: what a brush has touched, or a region that is named."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SHOWN = 448
"""Pixels that the longer side of a picture takes at least where it is painted over, as far as whole factors
allow."""

COLOUR = (225, 29, 72)
"""Red, green and blue of the paint."""

REGIONS = ("painted", "left", "right", "upper", "lower", "middle")
"""What can be named; all but the first need no pointer."""


def canvas(picture: np.ndarray) -> np.ndarray:
    """A picture large enough to paint on: uint8 [h, w, 3], by a whole factor, of uint8 [C, H, W]."""
    factor = max(1, SHOWN // max(picture.shape[1:]))
    pixels = np.broadcast_to(picture.transpose(1, 2, 0), (*picture.shape[1:], 3))
    return np.ascontiguousarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1))


def marked(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture, uint8 [1 or 3, H, W], in the colour of paint where a mask, bool [H, W], is true: uint8
    [3, H, W].
    """
    return np.where(mask, np.array(COLOUR, np.uint8)[:, None, None], picture)


def mask(region: str, edited: Mapping[str, Any] | None, size: tuple[int, int]) -> np.ndarray:
    """Where an image is drawn anew: bool [H, W].

    Args:
        region: one of `REGIONS`.
        edited: what an editor holds, its `layers` uint8 [h, w, 4] each.
        size: (height, width) of the image.
    """
    height, width = size
    found = np.zeros(size, bool)
    if region == "painted":
        for layer in (edited or {}).get("layers") or ():
            if layer is not None and layer.ndim == 3 and layer.shape[2] == 4:
                found |= _touched(layer[..., 3] > 127, size)
        return found
    rows, columns = slice(None), slice(None)
    if region in ("left", "right"):
        columns = slice(None, width // 2) if region == "left" else slice(width // 2, None)
    elif region in ("upper", "lower"):
        rows = slice(None, height // 2) if region == "upper" else slice(height // 2, None)
    else:
        rows, columns = (slice(side // 4, side - side // 4) for side in size)
    found[rows, columns] = True
    return found


def _touched(painted: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels of an image of which paint, bool [h, w] on a canvas of any size, covers a third or more."""
    shares = painted.astype(np.float64)
    for axis, side in enumerate(size):
        shares = _averaged(shares, axis, side)
    return shares >= 1 / 3


def _averaged(values: np.ndarray, axis: int, side: int) -> np.ndarray:
    """Means over `side` equal stretches of an axis."""
    edges = np.linspace(0, values.shape[axis], side + 1)
    total = np.concatenate([np.zeros_like(values.take([0], axis)), values.cumsum(axis)], axis)
    below = np.floor(edges).astype(int)
    above = np.minimum(below + 1, values.shape[axis])
    part = np.expand_dims(edges - below, tuple(i for i in range(values.ndim) if i != axis))
    at = total.take(below, axis) * (1 - part) + total.take(above, axis) * part
    return np.diff(at, axis=axis) / (values.shape[axis] / side)
