"""Pictures as every data source hands them over: arrays of bytes, in memory or mapped from a file."""

import hashlib
import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

HELD_AT_ONCE = 16
"""Pictures of a map that are read before the memory is given back."""

SURVEYED_AT_ONCE = 1 << 24
"""Bytes of a set that are looked at together."""


@dataclass(frozen=True)
class Pictures:
    """A set of pictures of one size.

    Attributes:
        images: uint8 [N, C, H, W]; a memory map is handed to other processes by its file's name.
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

    def __reduce__(self) -> tuple:
        images = self.images
        if not isinstance(images, np.memmap) or not len(images):
            return Pictures, (np.asarray(images), self.labels)
        whole = images
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        offset = whole.offset + images.ctypes.data - whole.ctypes.data
        return _mapped, (str(whole.filename), offset, images.shape, self.labels)

    def subset(self, indices: np.ndarray | slice) -> "Pictures":
        """The pictures at `indices` int64 [K], in that order; those of a slice are not copied."""
        return Pictures(self.images[indices], None if self.labels is None else self.labels[indices])

    def copy(self, indices: np.ndarray) -> "Pictures":
        """The pictures at `indices` int64 [K], in memory of their own.

        Of a map only a little is held meanwhile: the system may bring in megabytes around each picture.
        """
        images = np.empty((len(indices), *self.images.shape[1:]), np.uint8)
        at_once = HELD_AT_ONCE if isinstance(self.images, np.memmap) else max(1, len(indices))
        for first in range(0, len(indices), at_once):
            images[first : first + at_once] = self.images[indices[first : first + at_once]]
            self.let_go()
        return Pictures(images, None if self.labels is None else np.asarray(self.labels[indices]))

    def let_go(self) -> None:
        """Give back the memory of what was read of a map; the system keeps what it can for the next time."""
        owner: Any = self.images
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            owner.madvise(mmap.MADV_DONTNEED)


@dataclass(frozen=True)
class DataSet:
    """What a source reads.

    Attributes:
        train: the part to train on.
        validation: the part that is held out.
        classes: the names of the labels, if there are any.
        skipped: name and reason of everything that could not be read and was left out.
        known: what was found out about the pictures before, in plain containers; None leaves it to `survey`.
    """

    train: Pictures
    validation: Pictures
    classes: Sequence[str] | None = None
    skipped: Sequence[tuple[str, str]] = ()
    known: Mapping[str, Any] | None = None

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the pictures, in plain containers: at least what `survey` says."""
        return self.known or survey([self.train, self.validation])

    def fingerprint(self) -> str:
        """A hash of the contents, the same on every machine."""
        parts = [len(self.train), len(self.validation), *self.train.images.shape[1:]]
        classes = None if self.classes is None else [str(name) for name in self.classes]
        return hashlib.sha256(repr((classes, parts, self.facts["contents"])).encode()).hexdigest()[:16]


def survey(parts: Sequence[Pictures]) -> dict[str, Any]:
    """Look at every picture once.

    Returns:
        contents: a hash of all pixels and labels, in their order.
        mean, std: of each channel, in [0, 1].
        duplicates: how many pictures equal one before them, pixel by pixel.
    """
    digest = hashlib.sha256()
    channels = parts[0].images.shape[1]
    total, squares = np.zeros(channels), np.zeros(channels)
    hashes = []
    for images in _chunks(parts):
        digest.update(images)
        total += images.sum((0, 2, 3), dtype=np.uint64)
        squares += np.multiply(images, images, dtype=np.uint16).sum((0, 2, 3), dtype=np.uint64)
        hashes += [hashlib.blake2b(image, digest_size=8).digest() for image in images]
    for part in parts:
        if part.labels is not None:
            digest.update(part.labels.astype("<i8").tobytes())
    values = max(1, sum(part.images.size for part in parts) // channels)
    mean, square = total / values / 255, squares / values / 255**2
    return {
        "contents": digest.hexdigest(),
        "mean": mean.round(6).tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 0)).round(6).tolist(),
        "duplicates": len(hashes) - len(np.unique(np.array(hashes, "S8"))),
    }


def scattered(n: int) -> np.ndarray:
    """Where each of n pictures goes, int64 [n], before a share is cut off the end: the same every time."""
    places = np.empty(n, np.int64)
    places[np.random.RandomState(0).permutation(n)] = np.arange(n)
    return places


def num_training(n: int, validation_fraction: float) -> int:
    """How many of n pictures are left for training, at least one."""
    check_fraction(validation_fraction)
    return n - min(math.ceil(n * validation_fraction), n - 1)


def check_fraction(validation_fraction: float) -> None:
    """Refuse, with ValueError, what is not in [0, 1)."""
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"data.validation_fraction={validation_fraction} must be at least 0 and below 1")


def split(pictures: Pictures, validation_fraction: float, classes: Sequence[str] | None) -> DataSet:
    """Hold out a share of pictures in memory for validation, the same ones every time.

    Args:
        pictures: all of them, in an order that does not depend on the machine.
        validation_fraction: in [0, 1); rounded up to whole pictures, and at least one is left for training.
        classes: names of the labels.
    """
    cut = num_training(len(pictures), validation_fraction)
    order = np.argsort(scattered(len(pictures)))
    return DataSet(pictures.subset(order[:cut]), pictures.subset(order[cut:]), classes)


def _chunks(parts: Sequence[Pictures]) -> Iterator[np.ndarray]:
    for part in parts:
        at_once = max(1, SURVEYED_AT_ONCE // max(1, part.images[:1].nbytes))
        for first in range(0, len(part), at_once):
            yield np.ascontiguousarray(part.images[first : first + at_once])
            part.let_go()


def _mapped(file: str, offset: int, shape: tuple[int, ...], labels: np.ndarray | None) -> Pictures:
    return Pictures(np.memmap(file, np.uint8, "r", offset, shape), labels)
