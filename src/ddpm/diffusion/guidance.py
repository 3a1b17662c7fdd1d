"""How the class that is asked for steers the network's output, while sampling."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Output = Callable[[Tensor | None], Tensor]
"""labels int64 [B], or None without a condition -> the network's output for (x_t, t) with them."""


class Guidance(Protocol):
    """`needs_unconditional` says whether the output without a class is needed as well."""

    needs_unconditional: bool

    def check(self, num_timesteps: int) -> None:
        """Refuse, with ValueError, a chain of this many steps that the settings do not fit."""
        ...

    def __call__(self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        """The output to work with, [B, C * (1 + variance.outputs), H, W].

        Args:
            output_for: the network at x_t [B, C, H, W].
            x_t: says how many of the output's channels are the prediction.
            t: the timestep that the network is conditioned on, int64 [B].
            labels: int64 [B], or None for no class.
        """
        ...


class NoGuidance:
    """The network's output as it is, with the class where there is one."""

    needs_unconditional = False

    def check(self, num_timesteps: int) -> None:
        """There is nothing that could not fit."""

    def __call__(self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        return output_for(labels)


class ClassifierFree:
    """Away from the output without the class, towards and beyond the output with it (Ho and Salimans 2022,
    eq. 6).

    Epsilon, x_0, v and the posterior mean are affine in each other at a given x_t, so the same images come
    out whichever the network predicts; but not with `rescale`, which is of the output itself. A learned
    variance is that of the output with the class.

    Args:
        scale: 0 is the output without the class, 1 the one with it; the paper's w is scale - 1.
        interval: the lowest and the highest t with guidance, both included (Kynkäänniemi et al. 2024); beyond
            it the network is used once only. None guides everywhere.
        rescale: how far the guided output is brought back to the spread of the one with the class, 0 to 1:
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

    def __call__(self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None) -> Tensor:
        conditional = output_for(labels)
        if labels is None or not self.needs_unconditional:
            return conditional
        inside = None
        if self.interval is not None:
            lowest, highest = self.interval
            inside = (t >= lowest) & (t <= highest)
            if not inside.any():  # a wait for the device, for half of the work
                return conditional
        channels = x_t.shape[1]
        towards, away = conditional[:, :channels], output_for(None)[:, :channels]
        guided = away + self.scale * (towards - away)
        if self.rescale:
            own = _spread(guided)
            ratio = torch.where(own > 0, _spread(towards) / own, 1)
            guided = guided * (self.rescale * ratio + 1 - self.rescale)
        if inside is not None:
            guided = torch.where(inside.view(-1, 1, 1, 1), guided, towards)
        return torch.cat([guided, conditional[:, channels:]], dim=1)


def _spread(output: Tensor) -> Tensor:
    """Standard deviation within each image: [B, 1, 1, 1]."""
    return output.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
