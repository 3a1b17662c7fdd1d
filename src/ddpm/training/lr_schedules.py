"""How the learning rate moves with the optimizer steps: factors on the rate that the optimizer was given."""

import math
from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

MakeLRSchedule = Callable[[Optimizer], LRScheduler]
"""A schedule that waits for its optimizer, such as a partial of a function here, or of a class of
`torch.optim.lr_scheduler`.
"""


def constant(optimizer: Optimizer) -> LambdaLR:
    """The same rate at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)


def warmup(optimizer: Optimizer, warmup_steps: int = 5000) -> LambdaLR:
    """A linear rise to a constant rate (Ho et al. 2020, appendix B, and its code).

    Args:
        optimizer: whose rate moves.
        warmup_steps: step n of the warm-up has the rate lr * n / warmup_steps, n = 1, 2, ...; 0 for none.

    Raises:
        ValueError: where it is negative.
    """
    _at_least("warmup_steps", warmup_steps, 0)
    return LambdaLR(optimizer, lambda step: _warmed_up(step, warmup_steps))


def cosine(
    optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final_fraction: float = 0.0
) -> LambdaLR:
    """A linear rise, then a fall by half a cosine (Loshchilov and Hutter 2017, eq. 5, without restarts).

    Args:
        optimizer: whose rate moves.
        total_steps: length of the run; the rate has fallen at its end and stays there if the run goes on.
        warmup_steps: as for `warmup`, below `total_steps`.
        final_fraction: of the rate that is left at the end, in [0, 1].

    Raises:
        ValueError: where these are out of range.
    """
    _at_least("total_steps", total_steps, 1)
    _at_least("warmup_steps", warmup_steps, 0)
    if warmup_steps >= total_steps:
        raise ValueError(
            f"lr_schedule.warmup_steps={warmup_steps} must be below lr_schedule.total_steps={total_steps}"
        )
    if not 0 <= final_fraction <= 1:
        raise ValueError(f"lr_schedule.final_fraction={final_fraction} must be in [0, 1]")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return _warmed_up(step, warmup_steps)
        done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
        return 1 - (1 - final_fraction) * _half_cosine(done)

    return LambdaLR(optimizer, factor)


def one_cycle(optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.3) -> LambdaLR:
    """One rise and one fall, each half a cosine: for short runs of a known length.

    After Smith and Topin 2018, "Super-convergence"; the moments' decay stays as it is over the cycle.

    Args:
        optimizer: whose rate moves; it gives the highest one. The first step has 4 % of it.
        total_steps: length of the run; the rate falls to 0 at its end and stays there if the run goes on.
        warmup_fraction: share of the run in which the rate rises, between 0 and 1.

    Raises:
        ValueError: where these are out of range.
    """
    _at_least("total_steps", total_steps, 1)
    if not 0 < warmup_fraction < 1:
        raise ValueError(f"lr_schedule.warmup_fraction={warmup_fraction} must be between 0 and 1")

    def factor(step: int) -> float:
        done = min(1.0, step / total_steps)
        if done < warmup_fraction:
            return 0.04 + 0.96 * _half_cosine(done / warmup_fraction)
        return 1 - _half_cosine((done - warmup_fraction) / (1 - warmup_fraction))

    return LambdaLR(optimizer, factor)


def _warmed_up(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / max(1, warmup_steps))


def _half_cosine(u: float) -> float:
    """Rises smoothly from 0 to 1 while `u` does."""
    return (1 - math.cos(math.pi * u)) / 2


def _at_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"lr_schedule.{name}={value} must be a whole number, at least {least}")
