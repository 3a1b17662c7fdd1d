"""Samples that a callback draws in training, by the leader or by all ranks together."""

from contextlib import AbstractContextManager
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.diffusion.samplers import OnStep
from ddpm.sampling.batches import announced_sampling, images_at_once
from ddpm.sampling.drawing import Drawing
from ddpm.training.callbacks.interruption import (
    leader_alone,
    progressed,
    received,
    received_anywhere,
    together,
)
from ddpm.training.guides import guide_of


def drawing_ranks(trainer: Trainer, module: Any) -> AbstractContextManager[bool]:
    """Within it the leader draws alone; but where each rank holds a part of the network, all go through it
    together. Yields whether this rank draws.
    """
    return together(trainer) if module.is_sharded else leader_alone(trainer)


def at_once(trainer: Trainer, module: Any) -> int:
    """How many images are drawn together; of a sharded network on every rank the same, and all must call
    it.
    """
    batch_size = images_at_once(module)
    return int(trainer.strategy.broadcast(batch_size)) if module.is_sharded else batch_size


def drawn(
    trainer: Trainer, module: Any, drawing: Drawing, n: int, batch_size: int, on_step: OnStep | None = None
) -> Tensor | None:
    """Draw images 0 ... n-1 on the ranks that draw; None where the run is asked to end.

    Args:
        trainer: of the run.
        module: a `DDPM`.
        drawing: how they are drawn.
        n: how many.
        batch_size: of them at once.
        on_step: sees (t, x_t, predicted x_0) at every step of every batch.

    Returns:
        float32 [n, C, H, W] in [-1, 1], on the CPU.
    """
    asked_to_end = received_anywhere if module.is_sharded else received

    def each_step(t: int, x_t: Tensor, x_0: Tensor) -> None:
        progressed(trainer)
        if on_step is not None:
            on_step(t, x_t, x_0)

    return announced_sampling(
        drawing,
        range(n),
        batch_size=batch_size,
        on_step=each_step,
        stop=lambda: bool(asked_to_end(trainer)),
        quiet=not trainer.is_global_zero,
    )


def manner(module: Any, drawing: Drawing, weights: str) -> str:
    """By which weights and which sampler, for captions: averaged weights, DDIM, 50 steps."""
    average = getattr(module, "ema", None)
    is_raw = weights == "raw" or average is None or not average.state_dict()
    named = "raw weights" if is_raw else "averaged weights"
    guide = guide_of(drawing.guidance)
    guided = "" if guide is None else f", guided by {guide.file} of step {guide.step:,}"
    under = ", under the conditions of held-out images" if getattr(module, "is_conditioned", False) else ""
    return f"{named}, {type(drawing.sampler).__name__}, {drawing.steps:,} steps{guided}{under}"
