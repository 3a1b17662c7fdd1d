"""What sample.py leaves of the images that it drew: a file of arrays, a folder of pictures, or both."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.errors import UsageError
from ddpm.runtime.pieces import Parts, Pieces, write_npz
from ddpm.runtime.progress import Countdown
from ddpm.runtime.writing import whole
from ddpm.sampling.figures import SPREAD, to_uint8
from ddpm.sampling.image_files import names
from ddpm.sampling.image_files import write_images as write_files

SAMPLES, IMAGES = "samples.npz", "images"
"""What the images are written to, whole, when all of them are drawn: a file of arrays, a folder of PNGs."""

FORMATS = {"npz": (SAMPLES,), "png": (IMAGES,), "both": (SAMPLES, IMAGES)}


def first_images(parts: Sequence[Pieces], most: int) -> Iterator[np.ndarray]:
    """The first images, [N, H, W, C] at a time: uint8, or float32 of latents."""
    left = most
    for images in _images(parts):
        if left <= 0:
            return
        yield images[:left]
        left -= len(images)


def _images(parts: Sequence[Pieces]) -> Iterator[np.ndarray]:
    """All images, row by row, [N, H, W, C] at a time: uint8, or float32 of latents."""
    for pieces in parts:
        yield from (piece["images"] for piece in pieces)


def files_of(n: int, labels: Sequence[int] | None, classes: Sequence[str] | None) -> list[str]:
    """The name of each of n images' file, by its label's class."""
    if labels is None or classes is None:
        return names(n)
    return names(n, [None if label < 0 else classes[label] for label in labels])


def images_are_there(directory: Path, chosen: str, files: Sequence[str]) -> bool:
    """Whether all of them are written.

    Args:
        directory: of the samples.
        chosen: the format.
        files: the names of the images.

    Raises:
        UsageError: for a folder of images from which some were taken.
    """
    if not all((directory / name).exists() for name in FORMATS[chosen]):
        return False
    if IMAGES in FORMATS[chosen] and (lost := sorted({*files} - {*os.listdir(directory / IMAGES)})):
        raise UsageError(
            f"{directory / IMAGES}: {len(lost)} of {len(files)} images are not there any more, such as "
            f"{lost[0]}; delete the folder, and the same command draws them again"
        )
    return True


def write_images(
    directory: Path,
    chosen: str,
    parts: Sequence[Pieces],
    labels: Sequence[int] | None,
    files: Sequence[str],
    progressed: Callable[[], None],
    latents: Mapping[str, Any] | None = None,
) -> None:
    """Write what is not there yet of the format. It takes memory for a piece.

    Args:
        directory: of the samples.
        chosen: the format.
        parts: the images, row by row.
        labels: of all of them, where there are classes.
        files: their names.
        progressed: called after each file.
        latents: what is known of latents that nothing decodes; None where these are images.

    Raises:
        ddpm.runtime.writing.WriteError: where the disk refuses it.
    """
    formats = [name for name in FORMATS[chosen] if not (directory / name).exists()]
    if IMAGES in formats:
        with Countdown("writing images", len(files)) as countdown:

            def on_image(done: int) -> None:
                countdown.advance(done)
                progressed()

            write_files(directory / IMAGES, _bytes(parts), files, on_image)
    if SAMPLES in formats and latents is not None:
        _write_latents(directory / SAMPLES, parts, labels, latents)
    elif SAMPLES in formats:
        _write_samples(directory / SAMPLES, parts, labels)


def _bytes(parts: Sequence[Pieces]) -> Iterator[np.ndarray]:
    """All images, row by row, uint8 [N, H, W, C] at a time; of latents what is seen of their channels."""
    for images in _images(parts):
        yield images if images.dtype == np.uint8 else to_uint8(torch.from_numpy(images / SPREAD)).numpy()


def _write_latents(
    path: Path, parts: Sequence[Pieces], labels: Sequence[int] | None, latents: Mapping[str, Any]
) -> None:
    """latents: float32 [N, C, H, W] before shift and scale, which stand beside them, and labels int64 [N], as
    `data=latents` reads them. It takes memory for a piece.
    """
    scale, shift = np.float32(latents["scale"]), np.float32(latents["shift"])
    height, width, channels = next(_images(parts)).shape[1:]
    shape = (sum(pieces.n for pieces in parts), channels, height, width)
    given = {"scale": np.array(latents["scale"]), "shift": np.array(latents["shift"])}
    if labels is not None:
        given["labels"] = np.array(labels, np.int64)
    arrays: dict[str, Parts] = {
        "latents": (
            shape,
            np.dtype(np.float32),
            (np.moveaxis(x, -1, 1) / scale + shift for x in _images(parts)),
        )
    }
    arrays |= {name: (one.shape, one.dtype, [one]) for name, one in given.items()}
    with whole(path) as temporary:
        write_npz(temporary, arrays)


def _write_samples(path: Path, parts: Sequence[Pieces], labels: Sequence[int] | None) -> None:
    """arr_0: uint8 [N, H, W, C]; where there are classes arr_1: int64 [N], as in ADM's reference batches. It
    takes memory for a piece.
    """
    shape = (sum(pieces.n for pieces in parts), *next(_images(parts)).shape[1:])
    arrays: dict[str, Parts] = {"arr_0": (shape, np.dtype(np.uint8), _images(parts))}
    if labels is not None:
        given = np.array(labels, np.int64)
        arrays["arr_1"] = (given.shape, given.dtype, [given])
    with whole(path) as temporary:
        write_npz(temporary, arrays)
