"""What the network predicts, and how x_0 follows from the prediction.

Every other meaning follows from x_0: `predict_eps` gives eps, and any objective's `target` of both is what a
network with that objective should have put out.
"""

from typing import Protocol

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, predict_x_0, q_posterior_mean, q_sample


class Objective(Protocol):
    """A parametrisation of the reverse process. All tensors [B, C, H, W], `t` int64 [B].

    `defined_at_zero_snr` says whether x_0 follows from the prediction also where nothing of it is left in
    x_t.
    """

    defined_at_zero_snr: bool

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should have put out for x_t = q_sample(x_0, t, eps)."""
        ...

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 that the network's output for (x_t, t) stands for."""
        ...

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        """The squared error of x_0 that a squared error [B] of the network's output amounts to: [B]."""
        ...


class Epsilon:
    """The noise eps that was added to x_0 (Ho et al. 2020, eq. 11 and 14)."""

    defined_at_zero_snr = False

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return eps

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return predict_x_0(schedule, x_t, t, output)

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error / schedule.lookup("snr", t, error)


class X0:
    """The clean image itself."""

    defined_at_zero_snr = True

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return x_0

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return output

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error


class V:
    """v = sqrt(alpha-bar) eps - sqrt(1 - alpha-bar) x_0 (Salimans and Ho 2022, section 4 and appendix D)."""

    defined_at_zero_snr = True

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        signal = schedule.lookup("sqrt_alphas_cumprod", t, x_0)
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_0)
        return signal * eps - noise * x_0

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        signal = schedule.lookup("sqrt_alphas_cumprod", t, x_t)
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t)
        return signal * x_t - noise * output

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error / (1 + schedule.lookup("snr", t, error))


class PosteriorMean:
    """The mean of q(x_{t-1} | x_t, x_0) (Ho et al. 2020, eq. 8 and table 2).

    It is always that of the chain that the network was trained on. A shortened chain has another, and takes
    the x_0 that the output stands for.
    """

    defined_at_zero_snr = True

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        x_t = q_sample(schedule, x_0, t, eps)
        return q_posterior_mean(schedule.original, x_0, x_t, schedule.timestep(t))

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        step = schedule.timestep(t)
        share_of_x_t = q_posterior_mean(schedule.original, torch.zeros_like(x_t), x_t, step)
        return (output - share_of_x_t) / schedule.original.lookup("posterior_mean_x_0", step, x_t)

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error / schedule.original.lookup("posterior_mean_x_0", schedule.timestep(t), error) ** 2
