"""What measuring samples takes of a training, timed and said before it, and how often that is worth it."""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.quality.features import at_once
from ddpm.runtime.arithmetic import STEP
from ddpm.runtime.progress import duration
from ddpm.sampling.batches import seconds_to_draw
from ddpm.sampling.drawing import Drawing

log = logging.getLogger(__name__)

ROUND = (1, 2, 5)
"""Times a power of ten: what an interval is multiplied by. Few factors make it depend little on how busy a
machine is."""

NEAR_ZERO = 1e-9
"""Seconds of a training step, at least."""


class Cost(NamedTuple):
    """Seconds of a measurement, and of an optimizer step."""

    measurement: float
    step: float


def timed(
    drawing: Drawing,
    pieces: list[range],
    extractors: Iterable[Extractor],
    *,
    world_size: int,
    batch_size: int,
    measure: Callable[[Mapping[Extractor, Tensor]], object] | None,
) -> Cost:
    """What a measurement takes, and a step of the training, by a few evaluations of the network. No rank may
    wait for another in it, but in a sharded network.

    Args:
        drawing: of the samples.
        pieces: indices that are drawn at once.
        extractors: of their features.
        world_size: ranks that draw.
        batch_size: of the training, over all ranks.
        measure: what one rank makes of all features, float32 [n, D] each; None on the others.
    """
    first, n = pieces[0], pieces[-1].stop
    piece = seconds_to_draw(drawing, first, len(first))
    forward = piece / drawing.nfe / len(first)  # of an image
    stand_ins = {}
    for extractor in dict.fromkeys(extractors):
        images = torch.zeros(
            min(len(first), at_once(extractor.device)), *drawing.model.image_shape, dtype=torch.uint8
        )
        extractor(images)  # the first call also allocates
        begin = time.perf_counter()
        extractor(images).cpu()
        piece += (time.perf_counter() - begin) * len(first) / len(images)
        generator = torch.Generator().manual_seed(0)
        stand_ins[extractor] = torch.randn(n, extractor.num_features, generator=generator)
    begin = time.perf_counter()
    if measure is not None:
        measure(stand_ins)
    measuring = time.perf_counter() - begin
    rounds = math.ceil(len(pieces) / world_size)
    return Cost(rounds * piece + measuring, max(STEP * forward * batch_size / world_size, NEAR_ZERO))


def stretched(every_n_steps: int, cost: Cost, share: float | None) -> int:
    """Optimizer steps from one measurement to the next: as many as were asked for, or the first of 2, 5, 10,
    20, ... times as many that keeps measuring to its share of the training.

    Args:
        every_n_steps: that were asked for.
        cost: of a measurement and a step.
        share: of the time of training that measuring may take; None for any.
    """
    if share is None or cost.measurement <= 0:
        return every_n_steps
    factors = (factor * 10**power for power in itertools.count() for factor in ROUND)
    return next(
        every_n_steps * factor
        for factor in factors
        if cost.measurement <= share * cost.step * every_n_steps * factor or factor > 1e12
    )


def say_before(
    what: str, every_n_steps: int, asked_for: int, share: float | None, cost: Cost | None, steps: int
) -> None:
    """Say how often samples are measured, and what it takes.

    Args:
        what: is measured: the names of values, and of how many samples.
        every_n_steps: that were chosen, see `stretched`.
        asked_for: those that were typed.
        share: that measuring may take.
        cost: where it was timed.
        steps: of the training; below 1 where nobody knows.
    """
    if every_n_steps > asked_for and share is not None:
        log.warning(
            "%s: every %s steps, not every %s, to take no more than %.0f%% of the training; fewer samples "
            "(n) or steps (sampler.num_steps) take less, share=null has it all the same",
            what, f"{every_n_steps:,}", f"{asked_for:,}", 100 * share,
        )  # fmt: skip
    often = f"{what} every {every_n_steps:,} steps and at the end"
    if cost is None or steps <= 0:
        log.info("%s", often)
        return
    times = math.ceil(steps / every_n_steps)
    taken = times * cost.measurement / (steps * cost.step)
    log.info(
        "%s, %s in all, about %s each: %.2g%% of the training",
        often, times, short(cost.measurement), 100 * taken,
    )  # fmt: skip


def say_after(seconds: float, elapsed: float) -> None:
    """Say what measuring took of the seconds of the training."""
    log.info("measuring samples took %s, %.2g%% of the time", short(seconds), 100 * seconds / elapsed)


def short(seconds: float) -> str:
    """2.5 s; 3 min."""
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)
