"""Optimizers with their learning-rate schedule, per optimizer step."""

import math
from collections.abc import Iterable

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch.nn import Parameter
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def adam(
    parameters: Iterable[Parameter],
    lr: float = 2e-4,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup_steps: int = 5000,
) -> OptimizerLRSchedulerConfig:
    """The paper's: Adam at a constant rate after a linear warm-up (Ho et al. 2020, appendix B, and its code).

    Args:
        parameters: to optimize.
        lr: learning rate after the warm-up.
        betas: decay of the two moments.
        warmup_steps: step n of the warm-up has the rate lr * n / warmup_steps, n = 1, 2, ...; 0 for none.
    """
    optimizer = Adam(parameters, lr=lr, betas=tuple(betas), fused=True)
    warm_up = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / max(1, warmup_steps)))
    return _per_step(optimizer, warm_up)


def adam_one_cycle(
    parameters: Iterable[Parameter],
    total_steps: int,
    lr: float = 2e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    warmup_fraction: float = 0.3,
) -> OptimizerLRSchedulerConfig:
    """Adam with one rise and one fall of the rate, each half a cosine: for short runs of a known length.

    After Smith and Topin 2018, "Super-convergence"; the moments' decay stays as it is over the cycle.

    Args:
        parameters: to optimize.
        total_steps: length of the run; the rate falls to 0 at its end and stays there if the run goes on.
        lr: the highest learning rate; the first step has 4 % of it.
        betas: decay of the two moments.
        warmup_fraction: share of the run in which the rate rises, in (0, 1).
    """
    if total_steps < 1 or not 0 < warmup_fraction < 1:
        raise ValueError(
            f"optimizer: total_steps={total_steps} must be at least 1, and warmup_fraction={warmup_fraction} "
            "between 0 and 1"
        )

    def factor(step: int) -> float:
        done = min(1.0, step / total_steps)
        if done < warmup_fraction:
            return 0.04 + 0.96 * _half_cosine(done / warmup_fraction)
        return 1 - _half_cosine((done - warmup_fraction) / (1 - warmup_fraction))

    optimizer = Adam(parameters, lr=lr, betas=tuple(betas), fused=True)
    return _per_step(optimizer, LambdaLR(optimizer, factor))


def _half_cosine(u: float) -> float:
    """Rises smoothly from 0 to 1 while `u` does."""
    return (1 - math.cos(math.pi * u)) / 2


def _per_step(optimizer: Optimizer, schedule: LRScheduler) -> OptimizerLRSchedulerConfig:
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
