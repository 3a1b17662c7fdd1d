"""Gaussian data, noised one step at a time: a joint Gaussian, from which all follows by conditioning.

Nothing here knows a formula of diffusion models but the single noising step x_t = sqrt(1 - beta) x_{t-1} +
sqrt(beta) eps. That makes it a reference for those that state them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CLEAN = -1
"""The place of x_0 among the steps: before t = 0."""


class Gaussian(NamedTuple):
    """mean [D] and covariance [D, D], float64."""

    mean: Tensor
    covariance: Tensor


class Conditional(NamedTuple):
    """A Gaussian whose mean is affine in what is known: offset [D] + sum of gain [D, D] @ value, with a
    covariance [D, D] that does not depend on it.
    """

    gains: tuple[Tensor, ...]
    offset: Tensor
    covariance: Tensor

    def mean(self, *values: Tensor) -> Tensor:
        """[N, D] for as many values [N, D] as there are gains."""
        return self.offset + sum(value @ gain.T for gain, value in zip(self.gains, values, strict=True))


class Noising:
    """x_0 and every x_t of a chain, jointly Gaussian.

    Args:
        data: the distribution of x_0.
        betas: variance of each noising step, [T].
    """

    def __init__(self, data: Gaussian, betas: Sequence[float]):
        size = self.size = len(data.mean)
        self.num_timesteps = len(betas)
        self._mean = torch.zeros((len(betas) + 1) * size, dtype=torch.float64)
        self._covariance = torch.zeros(len(self._mean), len(self._mean), dtype=torch.float64)
        self._mean[:size] = data.mean
        self._covariance[:size, :size] = data.covariance
        for t, beta in enumerate(betas):
            last, new = self._block(t - 1), self._block(t)
            kept = math.sqrt(1 - beta)
            self._mean[new] = kept * self._mean[last]
            with_earlier = kept * self._covariance[last, : last.stop]
            self._covariance[new, : last.stop] = with_earlier
            self._covariance[: last.stop, new] = with_earlier.T
            self._covariance[new, new] = kept**2 * self._covariance[last, last] + beta * torch.eye(
                size, dtype=torch.float64
            )

    def _block(self, t: int) -> slice:
        return slice((t + 1) * self.size, (t + 2) * self.size)

    def marginal(self, t: int) -> Gaussian:
        """Of x_t, or of x_0 where `t` is CLEAN."""
        block = self._block(t)
        return Gaussian(self._mean[block], self._covariance[block, block])

    def given(self, wanted: int, *known: int) -> Conditional:
        """Of x at the step `wanted`, given x at other steps; CLEAN is x_0."""
        block = self._block(wanted)
        index = torch.cat([torch.arange(*self._block(t).indices(len(self._mean))) for t in known])
        between = self._covariance[block, index]
        gain = torch.linalg.solve(self._covariance[index][:, index], between.T).T
        return Conditional(
            gain.split(self.size, dim=1),
            self._mean[block] - gain @ self._mean[index],
            self._covariance[block, block] - gain @ between.T,
        )

    def signal(self, t: int) -> float:
        """What x_0 is multiplied by on its way to x_t."""
        return float(self.given(t, CLEAN).gains[0][0, 0])

    def noise(self, t: int) -> float:
        """Standard deviation of x_t given x_0."""
        return math.sqrt(float(self.given(t, CLEAN).covariance[0, 0]))


def standard(size: int) -> Gaussian:
    """Zero mean, unit covariance."""
    return Gaussian(torch.zeros(size, dtype=torch.float64), torch.eye(size, dtype=torch.float64))


def probability_flow(begin: Gaussian, end: Gaussian, x: Tensor) -> Tensor:
    """Where the probability-flow ODE takes x [N, D] from one marginal of noised Gaussian data to another.

    It keeps every quantile along the axes, which are the same at all times (Song et al. 2021, "Score-based
    generative modeling through stochastic differential equations", section 4.3).
    """
    values, axes = torch.linalg.eigh(end.covariance)
    before = (axes.T @ begin.covariance @ axes).diagonal()
    quantiles = (x - begin.mean) @ axes / before.sqrt()
    return end.mean + quantiles * values.sqrt() @ axes.T
