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

    Every Gaussian path x = a x_0 + s eps is a chain of this project in another scale: the one whose
    alpha-bar is a^2 / (a^2 + s^2), where x_t = x / sqrt(a^2 + s^2). An objective of such a path is stated in
    signal = sqrt(alpha-bar) and noise = sqrt(1 - alpha-bar), and so has a meaning on every schedule.

    `defined_at_zero_snr` says whether it has one also where nothing of x_0 is left in x_t.
    """

    defined_at_zero_snr: bool

    def network_inputs(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network is given for (x_t, t): an image [B, C, H, W] and a number [B] each, int64 or
        float. Here x_t itself, and the step of the chain that the network is trained on.
        """
        return x_t, schedule.timestep(t)

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the network should have put out for x_t = q_sample(x_0, t, eps)."""
        ...

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 that the network's output for (x_t, t) stands for."""
        ...

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        """The squared error of x_0 that a squared error [B] of the network's output amounts to: [B]."""
        ...


class Epsilon(Objective):
    """The noise eps that was added to x_0 (Ho et al. 2020, eq. 11 and 14)."""

    defined_at_zero_snr = False

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return eps

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return predict_x_0(schedule, x_t, t, output)

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error / schedule.lookup("snr", t, error)


class X0(Objective):
    """The clean image itself."""

    defined_at_zero_snr = True

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return x_0

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return output

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error


class V(Objective):
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


class PosteriorMean(Objective):
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


class Flow(Objective):
    """eps - x_0, the velocity of a path that is straight (Lipman et al. 2023; Liu et al. 2023, rectified
    flow).

    In that path's own frame it is x = (1 - u) x_0 + u eps with u = noise / (signal + noise), and x_t is this
    x divided by sqrt((1 - u)^2 + u^2). The network sees x, and is given 1000 u in place of the step, as is
    usual for it: 0 is clean and 1000 is noise, on any schedule. A step of DDIM with eta = 0 is Euler's in u.
    """

    defined_at_zero_snr = True

    def network_inputs(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t)
        size = schedule.lookup("sqrt_alphas_cumprod", t, x_t) + noise
        return x_t / size, (1000 * noise / size).flatten()

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return eps - x_0

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t)
        return (x_t - noise * output) / (schedule.lookup("sqrt_alphas_cumprod", t, x_t) + noise)

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error / (1 + schedule.lookup("snr", t, error).sqrt()) ** 2


class EDM(Objective):
    """(x_0 - c_skip x) / c_out, which has unit variance at every noise level (Karras et al. 2022, eq. 7 and
    table 1).

    There x = x_0 + sigma eps with sigma = noise / signal = 1 / sqrt(SNR), which is x_t / signal; c_skip is
    sd^2 / (sigma^2 + sd^2) and c_out sigma sd / sqrt(sigma^2 + sd^2), with sd for `sigma_data`. The network
    sees x / sqrt(sigma^2 + sd^2), and is given ln(sigma) / 4 in place of the step. EDM's weight on the error
    of x_0, 1 / c_out^2, is 1 on that of the output: weighting=simple.

    Args:
        sigma_data: standard deviation of the images' values in [-1, 1], above 0; that of natural images is
            about 0.5. With 1 the output is -v.

    Raises:
        ValueError: where it is not.
    """

    defined_at_zero_snr = False

    def __init__(self, sigma_data: float = 0.5):
        if not sigma_data > 0:
            raise ValueError(f"objective.sigma_data={sigma_data} must be above 0")
        self.sigma_data = sigma_data

    def network_inputs(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        log_sigma = -schedule.lookup("snr", t, x_t).log().flatten() / 2
        return x_t / self._deviation(schedule, t, x_t), log_sigma / 4

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        signal = schedule.lookup("sqrt_alphas_cumprod", t, x_0)
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_0)
        # x_0 - c_skip x loses digits where there is hardly noise; the same in x_0 and eps does not
        difference = noise / self.sigma_data * x_0 - self.sigma_data * signal * eps
        return difference / self._deviation(schedule, t, x_0)

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        signal = schedule.lookup("sqrt_alphas_cumprod", t, x_t)
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, x_t)
        deviation = self._deviation(schedule, t, x_t)
        return self.sigma_data * (self.sigma_data * signal * x_t / deviation + noise * output) / deviation

    def x_0_error(self, schedule: NoiseSchedule, t: Tensor, error: Tensor) -> Tensor:
        return error * self.sigma_data**2 / (1 + self.sigma_data**2 * schedule.lookup("snr", t, error))

    def _deviation(self, schedule: NoiseSchedule, t: Tensor, like: Tensor) -> Tensor:
        """Of x_t, where images have the deviation `sigma_data`: shaped to multiply `like`."""
        signal = schedule.lookup("sqrt_alphas_cumprod", t, like)
        noise = schedule.lookup("sqrt_one_minus_alphas_cumprod", t, like)
        return (noise.square() + (self.sigma_data * signal).square()).sqrt()
