"""Sets of images as a source hands them over: arrays of bytes or latents, in memory or mapped from a file."""

import hashlib
import mmap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ddpm.data.stream.images import StreamedImages

COPIED_AT_ONCE = 16
"""Images of a map that are read before the memory is given back."""

SURVEYED_AT_ONCE = 1 << 24
"""Bytes of a set that are looked at together."""

NAMED = 12
"""Classes that a sentence names."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Attributes:
        images: uint8 [N, C, H, W]; a memory map is handed to other processes by its file's name. Latents are
            float32, as x_0, and in memory.
        labels: int64 [N], or None where there are no classes.
        vectors: float32 [N, D], numbers that each image is conditioned on; None where there are none.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    vectors: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.images.shape
        are_last = shape[-1:] in ((1,), (3,)) and shape[1:2] not in ((1,), (3,))
        if self.images.dtype not in (np.uint8, np.float32) or len(shape) != 4 or not shape[1] or are_last:
            last = " (x.transpose(0, 3, 1, 2) where the channels come last)" if are_last else ""
            raise ValueError(f"images must be uint8 [N, C, H, W], not {self.images.dtype} {shape}{last}")
        if self.labels is not None and self.labels.shape != self.images.shape[:1]:
            raise ValueError(f"{len(self.labels)} labels for {len(self.images)} images")
        if (vectors := self.vectors) is not None and (
            vectors.dtype != np.float32 or vectors.shape[:1] != shape[:1] or vectors.ndim != 2
        ):
            raise ValueError(
                f"vectors must be float32 [{len(self.images)}, D], not {vectors.dtype} {vectors.shape}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __reduce__(self) -> tuple[Any, ...]:
        images = self.images
        if not isinstance(images, np.memmap) or not len(images):
            return ImageSet, (np.asarray(images), self.labels, self.vectors)
        whole = images
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        # of a window, or some channels, the whole images are mapped, and cut there as they were here
        count, channels, height, width = images.shape
        size, plane, row = images.strides[:3]
        first, corner = divmod(images.ctypes.data - whole.ctypes.data, size)
        channel, corner = divmod(corner, plane)
        top, left = divmod(corner, row)
        stored = (count, size // plane, plane // row, row)
        window = np.s_[:, channel : channel + channels, top : top + height, left : left + width]
        beside = [_sent(part) for part in (self.labels, self.vectors)]
        return _mapped, (str(whole.filename), whole.offset + first * size, stored, window, *beside)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def subset(self, indices: np.ndarray | slice) -> "ImageSet":
        """The images at `indices` int64 [K], in that order; those of a slice are not copied."""
        return ImageSet(self.images[indices], *self._beside(indices))

    def centre(self, size: tuple[int, int]) -> "ImageSet":
        """The middle (height, width) pixels of every image, which are not copied."""
        top, left = ((whole - part) // 2 for whole, part in zip(self.images.shape[2:], size, strict=True))
        return replace(self, images=self.images[:, :, top : top + size[0], left : left + size[1]])

    def copy(self, indices: np.ndarray) -> "ImageSet":
        """The images at `indices` int64 [K], in memory of their own.

        Of a map only a little is held meanwhile: the system may bring in megabytes around each image.
        """
        images = np.empty((len(indices), *self.images.shape[1:]), self.images.dtype)
        at_once = COPIED_AT_ONCE if isinstance(self.images, np.memmap) else max(1, len(indices))
        for first in range(0, len(indices), at_once):
            images[first : first + at_once] = self.images[indices[first : first + at_once]]
            self.release()
        return ImageSet(images, *map(_in_memory, self._beside(indices)))

    def _beside(self, indices: np.ndarray | slice) -> list[np.ndarray | None]:
        """Labels and vectors of some images."""
        return [None if part is None else part[indices] for part in (self.labels, self.vectors)]

    def release(self) -> None:
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
        train: the images to train on; nobody holds those of a stream.
        validation: the images that are held out.
        classes: the names of the labels, if there are any.
        skipped: name and reason of everything that could not be read and was left out.
        captions: of the images, those to train on first; None where an image has none. Nothing uses them yet.
        understood: what was made of how the images lie there, a sentence each: parts, classes, why.
        known_facts: what was found out about the images before; None leaves it to `survey`.
        known_fingerprint: what identifies the images, where it is not their contents.
        window: (height, width) of the part of an image that is shown at a time, another one each time in
            training; None where images are shown whole.
        latents: of floats, in plain containers: `scale` and `shift`, by which x_0 = (latent - shift) * scale;
            `vae`, the autoencoder that decodes them, or None, with its `checksum` and the `image_shape`
            [C, H, W] that it makes; `encoded_by`, what a file says of what made them. None where images are
            bytes.
        condition_channels: how many of the images' channels, the last ones, are no part of x_0 but the image
            that it is conditioned on, which is so flipped and cut as it is.
        vector_names: what the numbers of `ImageSet.vectors` are.

    Raises:
        ValueError: for floats without `latents`, and where no channel is left for x_0.
    """

    train: "ImageSet | StreamedImages"
    validation: ImageSet
    classes: Sequence[str] | None = None
    skipped: Collection[tuple[str, str]] = ()
    captions: Sequence[str | None] | None = None
    understood: Sequence[str] = ()
    known_facts: Mapping[str, Any] | None = None
    known_fingerprint: str | None = None
    window: tuple[int, int] | None = None
    latents: Mapping[str, Any] | None = None
    condition_channels: int = 0
    vector_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        are_floats = isinstance(self.train, ImageSet) and self.train.images.dtype == np.float32
        if are_floats and self.latents is None:
            raise ValueError(
                "images are float32, which is for latents with their scale (DataSet.latents); images must be "
                "uint8"
            )
        if self.condition_channels and not 0 < self.condition_channels < self.train.image_shape[0]:
            raise ValueError(
                f"condition_channels={self.condition_channels}: images have {self.train.image_shape[0]} "
                "channels, and one at least is left for x_0"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of x_0, of what is shown at a time."""
        channels, height, width = self.train.image_shape
        channels -= self.condition_channels
        return (channels, height, width) if self.window is None else (channels, *self.window)

    @cached_property
    def pictures(self) -> "DataSet":
        """The same images alone, without what is stored beside them for a network to be conditioned on."""
        if not self.condition_channels:
            return self
        channels = self.image_shape[0]
        parts = [
            ImageSet(part.images[:, :channels], part.labels)
            for part in (self.train, self.validation)
            if isinstance(part, ImageSet)
        ]
        return replace(
            self,
            train=parts[0],
            validation=parts[-1],
            condition_channels=0,
            known_facts=self.facts,
            known_fingerprint=self.fingerprint,
        )

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the images, in plain containers: at least what `survey` says, but for a
        stream.
        """
        facts = self.known_facts
        if facts is None:
            parts = [part for part in (self.train, self.validation) if isinstance(part, ImageSet)]
            facts = survey(parts, self.condition_channels)
        if isinstance(self.train, ImageSet) and self.train.vectors is not None:
            facts = {**facts, "vector": _vector_facts(self.train.vectors, self.vector_names)}
        return facts if self.window is None else {**facts, "window": list(self.window)}

    def with_classes(self, classes: Sequence[str]) -> "DataSet":
        """The same images, their classes numbered in another order.

        Args:
            classes: the same names in this order.

        Raises:
            ValueError: for other names, and images that are streamed.
        """
        if list(self.classes or ()) == list(classes):
            return self
        train, validation = self.train, self.validation
        if not isinstance(train, ImageSet) or sorted(self.classes or ()) != sorted(classes):
            raise ValueError(f"these images have no classes {', '.join(classes)} that could be put in order")
        numbers = np.array([list(classes).index(name) for name in self.classes or ()], np.int64)
        parts = [
            replace(part, labels=None if part.labels is None else numbers[part.labels])
            for part in (train, validation)
        ]
        facts = (
            None
            if self.known_facts is None
            else {**self.known_facts, **survey(parts, self.condition_channels)}
        )
        shown = ", ".join(map(str, classes[:NAMED])) + (", ..." if len(classes) > NAMED else "")
        return replace(
            self,
            train=parts[0],
            validation=parts[1],
            classes=list(classes),
            understood=[
                *self.understood,
                f"the classes are numbered in the order of a run: {shown}",
            ],
            known_facts=facts,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the images and labels, the same on every machine."""
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        parts = [len(self.train), len(self.validation), *self.train.image_shape, *(self.window or ())]
        parts += [self.condition_channels] if self.condition_channels else []
        classes = None if self.classes is None else [str(name) for name in self.classes]
        return hashlib.sha256(repr((classes, parts, self.facts["contents"])).encode()).hexdigest()[:16]


def survey(parts: Sequence[ImageSet], condition_channels: int = 0) -> dict[str, Any]:
    """Look at every image once.

    Args:
        parts: of one shape.
        condition_channels: see `DataSet`; all but the hash is of the other channels.

    Returns:
        contents: a hash of all pixels, labels and vectors, in their order.
        mean, std: of each channel, in [0, 1]; of floats, on their own scale.
        duplicates: how many images equal one before them, pixel by pixel.
    """
    digest = hashlib.sha256()
    channels = parts[0].images.shape[1] - condition_channels
    total, squares = np.zeros(channels), np.zeros(channels)
    hashes: list[bytes] = []
    for images in _chunks(parts):
        digest.update(images.data)
        if condition_channels:
            images = np.ascontiguousarray(images[:, :channels])
        if images.dtype == np.uint8:
            total += images.sum((0, 2, 3), dtype=np.uint64)
            squares += np.multiply(images, images, dtype=np.uint16).sum((0, 2, 3), dtype=np.uint64)
        else:
            total += images.sum((0, 2, 3), dtype=np.float64)
            squares += np.square(images, dtype=np.float64).sum((0, 2, 3))
        hashes += [hashlib.blake2b(image, digest_size=8).digest() for image in images]
    for part in parts:
        if part.labels is not None:
            digest.update(part.labels.astype("<i8").tobytes())
        if part.vectors is not None:
            digest.update(part.vectors.astype("<f4").tobytes())
    values = max(1, sum(part.images[:, 0].size for part in parts))
    white = 255 if parts[0].images.dtype == np.uint8 else 1
    mean, square = total / values / white, squares / values / white**2
    return {
        "contents": digest.hexdigest(),
        "mean": mean.round(6).tolist(),
        "std": np.sqrt(np.maximum(square - mean**2, 0)).round(6).tolist(),
        "duplicates": len(hashes) - len(np.unique(np.array(hashes, "S8"))),
    }


def _vector_facts(vectors: np.ndarray, names: Sequence[str] | None) -> dict[str, list[Any]]:
    """What is known of numbers float32 [N, D] of the images to train on: mean, deviation and range of each.

    A number that is the same for all images has a deviation of 1: it is divided by.
    """
    values = [np.asarray(vectors[:, column], np.float64) for column in range(vectors.shape[1])]
    known = [str(column) for column in range(len(values))] if names is None else list(names)
    return {
        "names": known,
        "mean": [float(one.mean()) for one in values],
        "std": [1.0 if one.min() == one.max() else float(one.std()) for one in values],
        "low": [float(one.min()) for one in values],
        "high": [float(one.max()) for one in values],
    }


def _chunks(parts: Sequence[ImageSet]) -> Iterator[np.ndarray]:
    for part in parts:
        at_once = max(1, SURVEYED_AT_ONCE // max(1, part.images[:1].nbytes))
        for first in range(0, len(part), at_once):
            yield np.ascontiguousarray(part.images[first : first + at_once])
            part.release()


def _mapped(
    file: str,
    offset: int,
    shape: tuple[int, ...],
    window: tuple[slice, ...],
    *beside: np.ndarray | tuple[Any, ...] | None,
) -> ImageSet:
    parts = (np.memmap(*part) if isinstance(part, tuple) else part for part in beside)
    return ImageSet(np.memmap(file, np.uint8, "r", offset, shape)[window], *parts)


def _sent(part: np.ndarray | None) -> np.ndarray | tuple[Any, ...] | None:
    """How something beside images is handed to other processes: rows of a map by its file's name."""
    if not isinstance(part, np.memmap) or not part.flags.c_contiguous or not part.size:
        return None if part is None else np.asarray(part)
    whole = part
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    offset = whole.offset + part.ctypes.data - whole.ctypes.data
    return str(whole.filename), part.dtype, "r", offset, part.shape


def _in_memory(part: np.ndarray | None) -> np.ndarray | None:
    return None if part is None else np.asarray(part)
