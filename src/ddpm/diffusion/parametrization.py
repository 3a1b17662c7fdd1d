"""What a network is given, and what its output means: x_0, eps and the variance of the reverse step."""

from typing import NamedTuple

from torch import Tensor

from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.process import NoiseSchedule, predict_eps
from ddpm.diffusion.variances import Variance


class Prediction(NamedTuple):
    """What is known of the reverse step at (x_t, t).

    x_0 and eps [B, C, H, W] belong together: x_t is their combination at t, also where x_0 was clipped.
    log_variance of the reverse step broadcasts with them.
    """

    x_0: Tensor
    eps: Tensor
    log_variance: Tensor


class Parametrization(NamedTuple):
    """Says what a network is given for (x_t [B, C, H, W], t int64 [B]), and reads its outputs
    [B, C * (1 + variance.outputs), H, W]; nothing is clipped, so that gradients reach every output.

    Attributes:
        objective: what the first C channels mean.
        variance: what the others mean, or which fixed variance there is.
    """

    objective: Objective
    variance: Variance

    def network_inputs(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is called with, in training, sampling and the bound alike: an image [B, C, H, W]
        and a number [B], see `Objective.network_inputs`.
        """
        return self.objective.network_inputs(schedule, x_t, t)

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 that the output stands for: [B, C, H, W]."""
        return self.objective.x_0(schedule, x_t, t, output[:, : x_t.shape[1]])

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """Of the reverse step on `schedule`, the chain in use; broadcasts with x_t."""
        return self.variance.log_variance(schedule, x_t, t, output[:, x_t.shape[1] :])

    def __call__(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Prediction:
        """All that the output says."""
        x_0 = self.x_0(schedule, x_t, t, output)
        return Prediction(
            x_0=x_0,
            eps=predict_eps(schedule, x_t, t, x_0),
            log_variance=self.log_variance(schedule, x_t, t, output),
        )
