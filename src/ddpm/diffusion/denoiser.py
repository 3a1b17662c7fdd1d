"""From a network's answer to what a sampler needs: x_0, eps and the variance of the reverse step."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

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


class Denoiser:
    """Hides from a sampler what the network predicts.

    Args:
        network: (x_t [B, C, H, W], t int64 [B]) -> [B, C * (1 + variance.outputs), H, W].
        objective: what its first C channels mean.
        variance: what the others mean, or which fixed variance there is.
        clip: keep the predicted x_0 within [-1, 1], the range of pictures, before anything is made of it.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        objective: Objective,
        variance: Variance,
        *,
        clip: bool = True,
    ):
        self.network = network
        self.objective = objective
        self.variance = variance
        self.clip = clip

    def __call__(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        """Ask the network about x_t [B, C, H, W] at step `t` int64 [B] of `schedule`, the chain in use."""
        return self.read(schedule, x_t, t, self.network(x_t, schedule.timestep(t)).to(x_t.dtype))

    def read(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Prediction:
        """What the network's `output` [B, C * (1 + variance.outputs), H, W] for (x_t, t) says."""
        channels = x_t.shape[1]
        x_0 = self.objective.x_0(schedule, x_t, t, output[:, :channels])
        if self.clip:
            x_0 = x_0.clamp(-1, 1)
        return Prediction(
            x_0=x_0,
            eps=predict_eps(schedule, x_t, t, x_0),
            log_variance=self.variance.log_variance(schedule, x_t, t, output[:, channels:]),
        )
