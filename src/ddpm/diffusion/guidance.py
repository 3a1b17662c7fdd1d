"""How the class that is asked for steers the network's answer, while sampling."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Answer = Callable[[Tensor | None], Tensor]
"""labels int64 [B], or None where no class is told -> what the network answers to (x_t, t) with them."""


class Guidance(Protocol):
    """`needs_unconditional` says whether the answer without a class is asked for as well."""

    needs_unconditional: bool

    def check(self, num_timesteps: int) -> None:
        """Refuse, with ValueError, a chain of this many steps that the settings do not fit."""
        ...

    def __call__(self, answer: Answer, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The answer to work with, [B, C * (1 + variance.outputs), H, W].

        Args:
            answer: the network, asked about x_t [B, C, H, W].
            x_t: says how many of the answer's channels are the prediction.
            t: what the network is told, int64 [B].
            labels: int64 [B], or None for no class.
        """
        ...


class NoGuidance:
    """The network's answer as it is, with the class where there is one."""

    needs_unconditional = False

    def check(self, num_timesteps: int) -> None:
        """There is nothing that could not fit."""

    def __call__(self, answer: Answer, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return answer(labels)


class ClassifierFree:
    """Away from the answer without the class, towards and beyond the answer with it (Ho and Salimans 2022,
    eq. 6).

    Epsilon, x_0, v and the posterior mean are lines in each other at a given x_t, so the same pictures come
    out whichever the network predicts; but not with `rescale`, which is of the answer itself. A learned
    variance is that of the answer with the class.

    Args:
        scale: 0 is the answer without the class, 1 the one with it; the paper's w is scale - 1.
        interval: the lowest and the highest t with guidance, both included (Kynkäänniemi et al. 2024); beyond
            it the network is asked once only. None guides everywhere.
        rescale: how far the guided answer is brought back to the spread of the one with the class, 0 to 1:
            phi of Lin et al. 2024, eq. 15 and 16, there with 0.7 for v. Large scales overexpose without it.

    Raises:
        ValueError: where a setting is out of range.
    """

    def __init__(self, scale: float = 2.0, *, interval: Sequence[int] | None = None, rescale: float = 0.0):
        if not (isinstance(scale, int | float) and 0 <= scale < math.inf):
            raise ValueError(f"guidance.scale={scale} must be a number of at least 0; 1 is no guidance")
        if not (isinstance(rescale, int | float) and 0 <= rescale <= 1):
            raise ValueError(f"guidance.rescale={rescale} must be a number between 0 and 1")
        if interval is not None and not (
            len(interval) == 2
            and all(isinstance(t, int) for t in interval)
            and 0 <= interval[0] <= interval[1]
        ):
            raise ValueError(
                f"guidance.interval={interval} must be [lowest t, highest t] in whole numbers, or null"
            )
        self.scale = scale
        self.interval = None if interval is None else tuple(interval)
        self.rescale = rescale

    @property
    def needs_unconditional(self) -> bool:
        return self.scale != 1

    def check(self, num_timesteps: int) -> None:
        if self.interval is not None and self.interval[1] >= num_timesteps:
            raise ValueError(
                f"guidance.interval={list(self.interval)}: t is 0 to {num_timesteps - 1} with "
                f"schedule.num_timesteps={num_timesteps}"
            )

    def __call__(self, answer: Answer, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        told = answer(labels)
        if labels is None or not self.needs_unconditional:
            return told
        inside = None
        if self.interval is not None:
            lowest, highest = self.interval
            inside = (t >= lowest) & (t <= highest)
            if not inside.any():  # a wait for the device, for half of the work
                return told
        channels = x_t.shape[1]
        towards, away = told[:, :channels], answer(None)[:, :channels]
        guided = away + self.scale * (towards - away)
        if self.rescale:
            own = _spread(guided)
            ratio = torch.where(own > 0, _spread(towards) / own, 1)
            guided = guided * (self.rescale * ratio + 1 - self.rescale)
        if inside is not None:
            guided = torch.where(inside.view(-1, 1, 1, 1), guided, towards)
        return torch.cat([guided, told[:, channels:]], dim=1)


def _spread(answer: Tensor) -> Tensor:
    """Standard deviation within each picture: [B, 1, 1, 1]."""
    return answer.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
