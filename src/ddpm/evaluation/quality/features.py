"""Features of many images, computed by all devices and kept on the way."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.runtime.memory import memory_of
from ddpm.runtime.pieces import Pieces
from ddpm.runtime.sharing import Sharing

SHARE_OF_MEMORY = 0.1
"""Of the device, that what an extractor computes for a batch may take."""

BYTES_PER_IMAGE = 24_000_000
"""What Inception holds for an image of 299x299 at once, at most, in float32; the others hold less."""

TIMED_ON_CPU = 8
"""Images, by which it is told how long others will take."""

MOST_AT_ONCE = {"cpu": 32, "cuda": 256, "mps": 64}
"""Images: more are not quicker."""


def features_of(
    extractor: Extractor, n: int, read: Callable[[range], np.ndarray], sharing: Sharing, name: str, title: str
) -> Pieces:
    """Compute the features of n images, float32 [n, D] under the name `features`.

    Args:
        extractor: prepared.
        n: images.
        read: those at neighbouring indices, uint8 [K, C, H, W].
        sharing: of the work.
        name: of the work.
        title: of the progress.
    """

    def compute(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        found = extractor(torch.from_numpy(np.ascontiguousarray(read(indices))))
        on_step()
        return {"features": found.cpu().numpy()}

    like = {"features": ((extractor.num_features,), np.dtype(np.float32))}
    return sharing.through(name, n, at_once(extractor.device), compute, title=title, like=like)


def seconds_an_image(extractor: Extractor, image_shape: tuple[int, int, int]) -> float:
    """How long an extractor takes for an image of (channels, height, width), from one batch."""
    n = at_once(extractor.device)
    if extractor.device.type == "cpu":  # where few are as quick, image by image, as many
        n = min(n, TIMED_ON_CPU)
    images = torch.arange(n * math.prod(image_shape)).mul(37).to(torch.uint8).view(n, *image_shape)
    extractor(images).cpu()  # the first batch also allocates
    begin = time.perf_counter()
    extractor(images).cpu()
    return (time.perf_counter() - begin) / n


def at_once(device: torch.device) -> int:
    """Images that an extractor takes together."""
    most = MOST_AT_ONCE.get(device.type, 32)
    memory = memory_of(device)
    return max(1, min(most, int(SHARE_OF_MEMORY * memory / BYTES_PER_IMAGE))) if memory else most


def together(pieces: Pieces, num_features: int) -> Tensor:
    """All features of pieces, float32 [n, D], held once."""
    found = np.empty((pieces.n, num_features), np.float32)
    at = 0
    for part in pieces:
        found[at : at + len(part["features"])] = part["features"]
        at += len(part["features"])
    return torch.from_numpy(found)


def write(path: Path, pieces: Pieces, num_features: int, chosen: np.ndarray) -> None:
    """Write those at some indices, ascending int64 [K], as an array of numpy [K, D], a piece at a time."""
    found = np.lib.format.open_memmap(path, "w+", np.float32, (len(chosen), num_features))
    at = done = 0
    for part in pieces:
        stop = at + len(part["features"])
        inside = chosen[done:][chosen[done:] < stop]
        found[done : done + len(inside)] = part["features"][inside - at]
        at, done = stop, done + len(inside)
    found.flush()
