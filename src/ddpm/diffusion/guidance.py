"""How a second output, without the class or condition or of a worse network, steers the network's, while
sampling.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

Network = Callable[..., Tensor]
"""An image [B, C, H, W] and a number [B] each, with labels int64 [B] and `vector` [B, D] where there are such
-> output.
"""


class Output(Protocol):
    """What a network puts out for (x_t, t)."""

    def __call__(self, labels: Tensor | None, network: Network = ...) -> Tensor:
        """With labels int64 [B] and the condition; or, for None, without what training withholds of them. Of
        the network that samples are drawn with, or of another one.
        """
        ...


class Guidance(Protocol):
    """`needs_unconditional` says whether the output without a class is needed as well, `needs_guide` whether
    that of another network is.
    """

    needs_unconditional: bool
    needs_guide: bool

    def check(self, num_timesteps: int) -> None:
        """Refuse, with ValueError, a chain of this many steps that the settings do not fit."""
        ...

    def __call__(
        self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None, num_timesteps: int
    ) -> Tensor:
        """The output to work with, [B, C * (1 + variance.outputs), H, W].

        Args:
            output_for: the network at x_t [B, C, H, W].
            x_t: says how many of the output's channels are the prediction.
            t: the timestep that the network is conditioned on, int64 [B].
            labels: int64 [B], -1 each where there is a condition and no class; None where there is neither.
            num_timesteps: of the chain that it was trained on.
        """
        ...


class NoGuidance:
    """The network's output as it is, with the class where there is one."""

    needs_unconditional = False
    needs_guide = False

    def check(self, num_timesteps: int) -> None:
        """There is nothing that could not fit."""

    def __call__(
        self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None, num_timesteps: int
    ) -> Tensor:
        return output_for(labels)


SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "constant": torch.ones_like,
    "linear": lambda u: 2 * (1 - u),
    "cosine": lambda u: 1 + torch.cos(math.pi * u),
}
"""How the weight beyond 1 is spread over u = t / (T - 1): factors whose mean over all t is 1 (Wang et al.
2024, "Analysis of classifier-free guidance weight schedulers"). They fall with t, so that the weight grows as
the image comes about.
"""


class Beyond:
    """What guides have in common: away from one output, towards and beyond another.

    Epsilon, x_0, v and the posterior mean are affine in each other at a given x_t, so the same images come
    out whichever the network predicts; but not with `rescale`, which is of the output itself. A learned
    variance is that of the output which is guided.

    Args:
        scale: 0 is the output that is led away from, 1 the other.
        interval: the lowest and the highest t with guidance, both included (Kynkäänniemi et al. 2024); beyond
            it the network is used once only. None guides everywhere.
        rescale: how far the guided output is brought back to the spread of the one that is guided, 0 to 1:
            phi of Lin et al. 2024, eq. 15 and 16, there with 0.7 for v. Large scales overexpose without it.
        shape: one of `SHAPES`; the scale at t is 1 + (scale - 1) times its factor.

    Raises:
        ValueError: where a setting is out of range.
    """

    def __init__(
        self,
        scale: float = 2.0,
        *,
        interval: Sequence[int] | None = None,
        rescale: float = 0.0,
        shape: str = "constant",
    ):
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
        if shape not in SHAPES:
            raise ValueError(f"guidance.shape={shape} must be {' or '.join(SHAPES)}")
        if shape != "constant" and scale < 1:
            raise ValueError(
                f"guidance.scale={scale}: guidance.shape={shape} spreads what is beyond 1; use a scale of at "
                "least 1, or guidance.shape=constant"
            )
        self.scale = scale
        self.interval = None if interval is None else tuple(interval)
        self.rescale = rescale
        self.shape = shape

    def check(self, num_timesteps: int) -> None:
        if self.interval is not None and self.interval[1] >= num_timesteps:
            raise ValueError(
                f"guidance.interval={list(self.interval)}: t is 0 to {num_timesteps - 1} with "
                f"schedule.num_timesteps={num_timesteps}"
            )

    def scale_at(self, t: Tensor, num_timesteps: int) -> float | Tensor:
        """At t int64 [B] of so many steps: [B, 1, 1, 1], or a number where it is the same at all."""
        if self.shape == "constant":
            return self.scale
        factor = SHAPES[self.shape](t.double() / max(1, num_timesteps - 1))
        return (1 + (self.scale - 1) * factor).view(-1, 1, 1, 1)

    def _guided(
        self, output: Tensor, other: Callable[[], Tensor], x_t: Tensor, t: Tensor, num_timesteps: int
    ) -> Tensor:
        """The guided output.

        Args:
            output: that is guided, [B, C * (1 + variance.outputs), H, W].
            other: computes the one that is led away from.
            x_t, t, num_timesteps: as of `Guidance`.
        """
        inside = None
        if self.interval is not None:
            lowest, highest = self.interval
            inside = (t >= lowest) & (t <= highest)
            if not inside.any():  # a wait for the device, for half of the work
                return output
        channels = x_t.shape[1]
        towards, away = output[:, :channels], other()[:, :channels]
        scale = self.scale_at(t, num_timesteps)
        guided = away + (scale.to(away.dtype) if isinstance(scale, Tensor) else scale) * (towards - away)
        if self.rescale:
            own = _spread(guided)
            ratio = torch.where(own > 0, _spread(towards) / own, 1)
            guided = guided * (self.rescale * ratio + 1 - self.rescale)
        if inside is not None:
            guided = torch.where(inside.view(-1, 1, 1, 1), guided, towards)
        return torch.cat([guided, output[:, channels:]], dim=1)


class ClassifierFree(Beyond):
    """Away from the output without the class, towards and beyond the output with it (Ho and Salimans 2022,
    eq. 6), whose w is scale - 1. Where training withholds a condition, alone or beside the class, it is away
    from the output without that. Its settings are those of `Beyond`.
    """

    needs_guide = False

    @property
    def needs_unconditional(self) -> bool:
        return self.scale != 1

    def __call__(
        self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None, num_timesteps: int
    ) -> Tensor:
        conditional = output_for(labels)
        if labels is None or not self.needs_unconditional:
            return conditional
        return self._guided(conditional, lambda: output_for(None), x_t, t, num_timesteps)


class Autoguidance(Beyond):
    """Away from the output of a worse network of the same kind, towards and beyond the own one (Karras et al.
    2024, "Guiding a diffusion model with a bad version of itself", eq. 3). It needs no classes.

    Args:
        ckpt: names the guide, a run directory or checkpoint; whoever reads it sets `guide`.
        scale, interval, rescale, shape: as of `Beyond`.

    Raises:
        ValueError: where a setting is out of range.
    """

    needs_unconditional = False

    def __init__(
        self,
        ckpt: str,
        scale: float = 2.0,
        *,
        interval: Sequence[int] | None = None,
        rescale: float = 0.0,
        shape: str = "constant",
    ):
        super().__init__(scale, interval=interval, rescale=rescale, shape=shape)
        self.ckpt = ckpt
        self.guide: Network | None = None

    @property
    def needs_guide(self) -> bool:
        return self.scale != 1

    def __call__(
        self, output_for: Output, x_t: Tensor, t: Tensor, labels: Tensor | None, num_timesteps: int
    ) -> Tensor:
        own, guide = output_for(labels), self.guide
        if not self.needs_guide:
            return own
        if guide is None:
            raise ValueError(f"guidance.ckpt={self.ckpt}: the guide is not loaded")
        return self._guided(own, lambda: output_for(labels, guide), x_t, t, num_timesteps)


def _spread(output: Tensor) -> Tensor:
    """Standard deviation within each image: [B, 1, 1, 1]."""
    return output.flatten(1).std(1, correction=0).view(-1, 1, 1, 1)
