"""Which images are held out for validation, where a set has no part of its own for it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddpm.data.images import DataSet, ImageSet


def check_fraction(validation_fraction: float) -> None:
    """Refuse, with ValueError, what is not in [0, 1)."""
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"data.validation_fraction={validation_fraction} must be at least 0 and below 1")


def num_training(n: int, validation_fraction: float) -> int:
    """How many of n images are left for training, at least one.

    Raises:
        ValueError: for a fraction outside [0, 1).
    """
    check_fraction(validation_fraction)
    return n - min(math.ceil(n * validation_fraction), n - 1)


def scattered(n: int) -> np.ndarray:
    """The position of each of n images, int64 [n], before a share is cut off the end: the same every time."""
    positions = np.empty(n, np.int64)
    positions[np.random.RandomState(0).permutation(n)] = np.arange(n)
    return positions


def split(
    images: ImageSet,
    validation_fraction: float,
    classes: Sequence[str] | None = None,
    *,
    latents: Mapping[str, Any] | None = None,
) -> DataSet:
    """Hold out a share of images in memory, the same ones every time.

    Args:
        images: all of them, in an order that does not depend on the machine.
        validation_fraction: in [0, 1); rounded up to whole images, and at least one is left for training.
        classes: names of the labels; None where there are none.
        latents: of floats, see `DataSet`.

    Raises:
        ValueError: for a fraction outside [0, 1).
    """
    cut = num_training(len(images), validation_fraction)
    order = np.argsort(scattered(len(images)))
    return DataSet(images.subset(order[:cut]), images.subset(order[cut:]), classes, latents=latents)
