"""Samples of a network in training, drawn by all its ranks: their features."""

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.quality.features import at_once
from ddpm.random import BLOCK
from ddpm.runtime.progress import Countdown
from ddpm.sampling.batches import images_at_once
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8
from ddpm.training.callbacks.interruption import end_if_asked, progressed, received, received_anywhere
from ddpm.training.module import DDPM

PIECES = 8
"""That samples are drawn in, at least, where each still has a block of random numbers: as many devices share
them evenly. They are the same for any number of devices, so that the samples are."""


class AskedToEnd(Exception):  # noqa: N818 - it is no error
    """Leaves a measurement in the middle."""


def look_out(trainer: Trainer, asked: Callable[[Trainer], int] = received) -> None:
    """Say to those that wait that this rank has got further.

    Args:
        trainer: of the callback.
        asked: says whether the run is to end.

    Raises:
        AskedToEnd: where it is.
    """
    progressed(trainer)
    if asked(trainer):
        raise AskedToEnd


def pieces_of(trainer: Trainer, module: DDPM, n: int) -> list[range]:
    """Indices of n samples, as they are drawn at once whatever the number of devices is. All ranks must call
    it.
    """
    blocks = math.ceil(n / PIECES / BLOCK)
    size: int = trainer.strategy.broadcast(min(images_at_once(module), blocks * BLOCK))
    return [range(first, min(first + size, n)) for first in range(0, n, size)]


def features_of_samples(
    trainer: Trainer,
    module: DDPM,
    drawing: Drawing,
    extractors: Iterable[Extractor],
    n: int,
    classes: np.ndarray | None,
) -> dict[Extractor, Tensor]:
    """Of all samples, float32 [n, D] on the CPU; each rank draws its share of them. All ranks must call it.

    Args:
        trainer: whose ranks they are.
        module: that draws.
        drawing: how.
        extractors: prepared.
        n: samples.
        classes: that each is asked to be of, int64 [n]; None where the network is unconditional.

    Raises:
        ddpm.training.ending.Interrupted: where any rank is asked to end.
    """
    pieces = pieces_of(trainer, module, n)
    rounds = math.ceil(len(pieces) / trainer.world_size)
    asked = received_anywhere if module.is_sharded else received
    found = {extractor: torch.zeros(n, extractor.num_features) for extractor in extractors}
    steps = drawing.steps * rounds if trainer.is_global_zero else 0
    with Countdown("measuring samples", steps) as countdown:

        def on_step(*_: Any) -> None:
            look_out(trainer, asked)
            countdown.advance(countdown.done + 1)

        for first in range(0, rounds * trainer.world_size, trainer.world_size):
            own = first + trainer.global_rank
            is_own = own < len(pieces)
            if is_own or module.is_sharded:  # through which all go together
                with suppress(AskedToEnd):
                    piece = pieces[min(own, len(pieces) - 1)]
                    of = None if classes is None else torch.from_numpy(classes[piece.start : piece.stop])
                    images = to_uint8(drawing(piece, labels=of, on_step=on_step))
                    for extractor, rows in found.items() if is_own else ():
                        parts = [extractor(part).cpu() for part in images.split(at_once(extractor.device))]
                        rows[piece.start : piece.stop] = torch.cat(parts)
            end_if_asked(trainer)
    if trainer.world_size > 1:  # what others have computed is 0 here
        for extractor, rows in found.items():
            shared = rows.to(trainer.strategy.root_device)
            torch.distributed.all_reduce(shared)
            found[extractor] = shared.cpu()
    return found
