"""The variance of the reverse step p(x_{t-1} | x_t)."""

from typing import Protocol

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule


class Variance(Protocol):
    """Log-variance of p(x_{t-1} | x_t) on the chain in use, which may be a respaced one.

    `outputs` is how many values per channel of the image the network has to give for it beside the
    prediction.
    """

    outputs: int

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """Shaped to broadcast with x_t [B, C, H, W]; `output` [B, C * outputs, H, W] is the network's part
        for the variance, empty where there is none.
        """
        ...


class FixedSmall:
    """The variance of q(x_{t-1} | x_t, x_0): right where the data is a single point (Ho et al. 2020, section
    3.2).

    It is 0 at t = 0, where its logarithm is that of t = 1 instead, as in the paper's code.
    """

    outputs = 0

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return schedule.lookup("log_posterior_variance", t, x_t)


class FixedLarge:
    """beta_t: right where the data is a unit Gaussian (Ho et al. 2020, section 3.2).

    At t = 0 it is the posterior variance of t = 1 instead, as in the paper's code, for the likelihood's sake.
    """

    outputs = 0

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        first = schedule.lookup("log_posterior_variance", t, x_t)
        return torch.where(t.view(first.shape) == 0, first, schedule.lookup("log_betas", t, x_t))


class Learned:
    """The network's output is the log-variance itself, of every value of x_{t-1}."""

    outputs = 1

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return output


class LearnedRange:
    """Between the smallest and the largest variance that can be right, on a logarithmic scale (Nichol and
    Dhariwal 2021, eq. 15).

    The network's output is -1 at the variance of q(x_{t-1} | x_t, x_0), with its value of t = 1 at t = 0, and
    1 at beta_t; both are those of the chain in use. It is not clipped, as in the paper.
    """

    outputs = 1

    def log_variance(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        smallest = schedule.lookup("log_posterior_variance", t, x_t)
        return smallest + (output + 1) / 2 * schedule.lookup("log_variance_range", t, x_t)
