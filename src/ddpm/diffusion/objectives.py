"""What the network predicts, and how x_0 follows from the prediction."""

from typing import Protocol

from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, predict_x_0


class Objective(Protocol):
    """A parametrisation of the reverse process. All tensors [B, C, H, W], `t` int64 [B]."""

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should have answered for x_t = q_sample(x_0, t, eps)."""
        ...

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 that the network's answer to (x_t, t) stands for."""
        ...


class Epsilon:
    """The noise eps that was added to x_0 (Ho et al. 2020, eq. 11 and 14)."""

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return eps

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return predict_x_0(schedule, x_t, t, output)
