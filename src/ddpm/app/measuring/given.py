"""Images of files as evaluate.py measures them: as the images of the data are, or refused."""

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddpm.app.grammar import absolute
from ddpm.data.images import DataSet
from ddpm.data.saved import Read, Saved, saved_at
from ddpm.errors import UsageError
from ddpm.evaluation.quality.material import Samples
from ddpm.runtime.progress import Countdown

BLOCK = 1 << 24
"""Bytes of images that are looked at together."""

LONGEST = 40
"""Letters of the name of a folder or file, in the name of a value."""


@dataclass(frozen=True)
class Given:
    """Images of files.

    Attributes:
        typed: where they are, as it was typed.
        saved: the images that are there.
        n: those of them that are measured, the first.
        image_shape: (channels, height, width) of the data's, and so of theirs.
        asked: the class that each is of, int64 [n]; None where that is not known, or does not matter.
        fingerprint: of their pixels, however they are kept.
    """

    typed: str
    saved: Saved
    n: int
    image_shape: tuple[int, int, int]
    asked: np.ndarray | None
    fingerprint: str

    @property
    def contents(self) -> dict[str, str]:
        """Fingerprints of what is measured, by name."""
        if self.asked is None:
            return {"samples": self.fingerprint}
        classes = hashlib.sha256(self.asked.astype("<i8").tobytes()).hexdigest()[:16]
        return {"samples": self.fingerprint, "classes of samples": classes}

    @contextmanager
    def samples(self) -> Iterator[Samples]:
        """Open them, in the process that measures them."""
        path = absolute(self.typed)
        with self.saved.opened() as read:
            yield Samples(
                n=self.n,
                read=lambda indices: _images(self.typed, self.saved, read, indices, self.image_shape)[0],
                name=_slug(path.name if path.is_dir() else path.stem.removesuffix(".tar")),
                about={
                    "samples": str(path),
                    "samples_measured": self.n,
                    "samples_there": self.saved.n,
                    "samples_fingerprint": self.fingerprint,
                },
                asked=self.asked,
            )


def given(config: Mapping[str, Any], data: DataSet, by_class: str | None) -> Given:
    """Find the images that a configuration names, and look at each of them.

    Args:
        config: with `samples` and `n`.
        data: that they are compared with.
        by_class: a metric that needs their classes, if any does.

    Raises:
        UsageError: where they are too few, damaged, or of another size or colour than the data's; where they
            need classes and have none.
    """
    typed = config["samples"]
    try:
        saved = saved_at(absolute(typed), None if data.image_shape[0] in (1, 3) else data.image_shape[0])
    except (ValueError, OSError) as error:
        raise UsageError(f"samples={typed}: {error}") from error
    n = saved.n if config["n"] is None else int(config["n"])
    if n > saved.n:
        raise UsageError(f"n={n}: samples={typed} holds {saved.n} images; leave n out for all of them")
    asked = None if by_class is None else _classes(typed, saved, data, by_class)[:n]
    fingerprint = _looked_at(typed, saved, n, data.image_shape)
    return Given(typed, saved, n, data.image_shape, asked, fingerprint)


def _looked_at(typed: str, saved: Saved, n: int, image_shape: tuple[int, int, int]) -> str:
    """Read the first n images. Returns a hash of their pixels, 16 hexadecimal digits."""
    digest = hashlib.sha256(repr((n, *image_shape)).encode())
    is_colour = False
    at_once = max(1, BLOCK // math.prod(image_shape))
    with Countdown("looking at the samples", n) as countdown, saved.opened() as read:
        for first in range(0, n, at_once):
            indices = range(first, min(first + at_once, n))
            images, some_colour = _images(typed, saved, read, indices, image_shape)
            digest.update(images.data)
            is_colour = is_colour or some_colour
            countdown.advance(indices.stop)
    if image_shape[0] == 3 and not is_colour:
        raise UsageError(
            f"samples={typed}: are grey, and the images of the data are in colour; give data.channels=1 if "
            "they are meant to be grey, or name other data"
        )
    return digest.hexdigest()[:16]


def _images(
    typed: str, saved: Saved, read: Read, indices: range, image_shape: tuple[int, int, int]
) -> tuple[np.ndarray, bool]:
    """Neighbouring images, uint8 [K, C, H, W], and whether one of them is in colour. Grey ones among those
    in colour get three equal channels.

    Raises:
        UsageError: where one is damaged, or not as the data's.
    """
    channels, height, width = image_shape
    images = np.empty((len(indices), *image_shape), np.uint8)
    is_colour = False
    for index, found in zip(indices, read(indices), strict=True):
        if isinstance(found, str):
            raise UsageError(
                f"samples={typed}: {saved.name(index)} cannot be read: {found}; mend it or take it away"
            )
        if found.pixels.shape[1:] != (height, width):
            theirs, ours = found.pixels.shape[1:], [height, width]
            raise UsageError(
                f"samples={typed}: {saved.name(index)} is of size {list(theirs)} (height, width), and the "
                f"images of the data of {ours}; compare like with like: give data.image_size=[{theirs[0]},"
                f"{theirs[1]}] if samples are meant to be so, or name other data"
            )
        if channels not in (1, 3) and len(found.pixels) != channels:
            raise UsageError(
                f"samples={typed}: {saved.name(index)} has {len(found.pixels)} channels, and the images of "
                f"the data {channels}; name other data"
            )
        if len(found.pixels) > channels:
            raise UsageError(
                f"samples={typed}: {saved.name(index)} is in colour, and the images of the data are grey; "
                "give data.channels=3 if they are meant to be in colour, or name other data"
            )
        is_colour |= len(found.pixels) == 3
        images[index - indices.start] = found.pixels
    return images, is_colour


def _classes(typed: str, saved: Saved, data: DataSet, metric: str) -> np.ndarray:
    """The class that each image is of, as the data numbers them, int64 [N].

    Raises:
        UsageError: where this is not known.
    """
    try:
        labels = saved.labels()
    except ValueError as error:
        raise UsageError(
            f"samples={typed}: {error}; metrics={metric} needs classes that count from 0"
        ) from error
    if labels is None:
        raise UsageError(
            f"samples={typed}: says no classes, which metrics={metric} needs; save an npz file with arr_0, "
            "the images, and arr_1, the number of each one's class"
        )
    classes = [str(name) for name in data.classes or ()]
    if labels.dtype.kind != "i":
        numbers = {name: number for number, name in enumerate(classes)}
        if unknown := sorted(set(labels.tolist()) - set(numbers)):
            raise UsageError(
                f"samples={typed}: the data has no class {unknown[0]}; it has {', '.join(classes)}"
            )
        return np.array([numbers[name] for name in labels.tolist()], np.int64)
    if classes and labels.max() >= len(classes):
        raise UsageError(
            f"samples={typed}: one is of class {labels.max()}, and the data has classes 0 to "
            f"{len(classes) - 1}"
        )
    return labels


def _slug(name: str) -> str:
    """The name of a folder or file as a name of a value holds it; "files" where nothing is left of it."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:LONGEST].strip("-") or "files"
