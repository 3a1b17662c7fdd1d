"""Pictures in memory, as every data source hands them over."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """A set of pictures of one size.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], or None where there are no classes.
    """

    images: np.ndarray
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(
                f"images must be uint8 [N, C, H, W], not {self.images.dtype} {self.images.shape}"
            )
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.labels)} labels for {len(self.images)} images")

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: np.ndarray) -> "Pictures":
        """The pictures at `indices` int64 [K], in that order."""
        return Pictures(self.images[indices], None if self.labels is None else self.labels[indices])


@dataclass(frozen=True)
class DataSet:
    """What a source reads: a training part, a validation part, and the names of the classes, if it has any."""

    train: Pictures
    validation: Pictures
    classes: Sequence[str] | None = None

    def fingerprint(self) -> str:
        """A hash of the contents, the same on every machine."""
        digest = hashlib.sha256(repr(None if self.classes is None else list(self.classes)).encode())
        for part in (self.train, self.validation):
            digest.update(repr(part.images.shape).encode())
            digest.update(np.ascontiguousarray(part.images))
            if part.labels is not None:
                digest.update(part.labels.astype("<i8").tobytes())
        return digest.hexdigest()[:16]


def split(pictures: Pictures, validation_fraction: float, classes: Sequence[str] | None) -> DataSet:
    """Hold out a share of the pictures for validation, the same ones every time.

    Args:
        pictures: all of them, in an order that does not depend on the machine.
        validation_fraction: in [0, 1); rounded up to whole pictures, and at least one is left for training.
        classes: names of the labels.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"data.validation_fraction={validation_fraction} must be at least 0 and below 1")
    order = np.random.RandomState(0).permutation(len(pictures))
    held_out = min(math.ceil(len(pictures) * validation_fraction), len(pictures) - 1)
    cut = len(pictures) - held_out
    return DataSet(pictures.subset(order[:cut]), pictures.subset(order[cut:]), classes)
