"""From a network's answer to what a sampler needs: x_0, eps and the variance of the reverse step."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.guidance import Guidance, NoGuidance
from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.process import NoiseSchedule, predict_eps
from ddpm.diffusion.variances import Variance


class Prediction(NamedTuple):
    """What a network's answer to (x_t, t) says.

    x_0 and eps [B, C, H, W] belong together: x_t is their combination at t, also where x_0 was clipped.
    log_variance of the reverse step broadcasts with them.
    """

    x_0: Tensor
    eps: Tensor
    log_variance: Tensor


class Known(NamedTuple):
    """Pixels that are known beforehand: what is drawn around them fits them (inpainting).

    Attributes:
        x_0: [B, C, H, W] in [-1, 1], or broadcasting with it.
        free: bool [B, 1, H, W], or broadcasting with it: where nothing is known.
    """

    x_0: Tensor
    free: Tensor


class Denoiser:
    """Hides from a sampler what the network predicts, and of which classes.

    Args:
        network: (x_t [B, C, H, W], t int64 [B]) -> [B, C * (1 + variance.outputs), H, W]; also called with
            labels where there are some.
        objective: what its first C channels mean.
        variance: what the others mean, or which fixed variance there is.
        clip: keep the predicted x_0 within [-1, 1], the range of pictures, before anything is made of it, and
            after guidance.
        labels: int64 [B], the class that each picture of the batch is to be of; None for any.
        guidance: how the class steers.
        known: pixels whose x_0 is this, whatever the network says. Every sampler then takes them through the
            process in the way that leads there: the ancestral one draws them from q(x_{t-1} | x_t, x_0).
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        objective: Objective,
        variance: Variance,
        *,
        clip: bool = True,
        labels: Tensor | None = None,
        guidance: Guidance | None = None,
        known: Known | None = None,
    ):
        self.network = network
        self.objective = objective
        self.variance = variance
        self.clip = clip
        self.labels = labels
        self.guidance = guidance or NoGuidance()
        self.known = known

    def __call__(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        """Ask the network about x_t [B, C, H, W] at step `t` int64 [B] of `schedule`, the chain in use."""
        timestep = schedule.timestep(t)

        def answer(labels: Tensor | None) -> Tensor:
            told = () if labels is None else (labels,)
            return self.network(x_t, timestep, *told).to(x_t.dtype)

        return self.read(schedule, x_t, t, self.guidance(answer, x_t, timestep, self.labels))

    def read(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Prediction:
        """What the network's `output` [B, C * (1 + variance.outputs), H, W] for (x_t, t) says."""
        channels = x_t.shape[1]
        x_0 = self.objective.x_0(schedule, x_t, t, output[:, :channels])
        if self.clip:
            x_0 = x_0.clamp(-1, 1)
        if self.known is not None:
            x_0 = torch.where(self.known.free, x_0, self.known.x_0)
        return Prediction(
            x_0=x_0,
            eps=predict_eps(schedule, x_t, t, x_0),
            log_variance=self.variance.log_variance(schedule, x_t, t, output[:, channels:]),
        )
