"""Gaussian data, noised one step at a time: a joint Gaussian, from which all follows by conditioning.

Nothing here knows a formula of diffusion models but the single noising step x_t = sqrt(1 - beta) x_{t-1} +
sqrt(beta) eps. That makes it a reference for those that state them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

CLEAN = -1
"""Where x_0 stands among the steps: before t = 0."""


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
        self._given: dict[tuple[int, ...], Conditional] = {}
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
        """Of x at the step `wanted`, given x at other steps; CLEAN is x_0. Worked out once."""
        asked = (wanted, *known)
        if asked not in self._given:
            self._given[asked] = self._conditioned(wanted, known)
        return self._given[asked]

    def _conditioned(self, wanted: int, known: tuple[int, ...]) -> Conditional:
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


class Exact:
    """What is known of Gaussian data at the steps of a chain that are visited: tables [K, ...].

    Args:
        noising: the joint Gaussian of the original chain.
        steps: K of its steps, rising; by default all.

    Attributes:
        steps: those.
        signal, noise: [K], x_t given x_0 has the mean signal x_0 and the deviation noise.
        small: [K], variance of x before the step given x after it and x_0; that of the second step also for
            the first, where it is 0.
        large: [K], variance of x after the step given x before it.
        noising: as given.
    """

    def __init__(self, noising: Noising, steps: Sequence[int] | None = None):
        self.noising = noising
        self.steps = list(range(noising.num_timesteps)) if steps is None else list(steps)
        before = [CLEAN, *self.steps[:-1]]
        noised = [noising.given(t, CLEAN) for t in self.steps]
        self.signal = torch.stack([each.gains[0][0, 0] for each in noised])
        self.noise = torch.stack([each.covariance[0, 0] for each in noised]).sqrt()
        best = [noising.given(CLEAN, t) for t in self.steps]
        self._best = torch.stack([each.gains[0] for each in best])
        self._best_offset = torch.stack([each.offset for each in best])
        after_first = [noising.given(s, CLEAN, t) for s, t in zip(before[1:], self.steps[1:], strict=True)]
        identity, nothing = torch.eye(noising.size, dtype=torch.float64), torch.zeros_like(self._best[0])
        self._from_x_0 = torch.stack([identity, *(each.gains[0] for each in after_first)])
        self._from_x_t = torch.stack([nothing, *(each.gains[1] for each in after_first)])
        self.large = torch.stack(
            [noising.given(t, s).covariance[0, 0] for s, t in zip(before, self.steps, strict=True)]
        )
        small = [each.covariance[0, 0] for each in after_first]
        self.small = torch.stack([*small[:1], *small]) if small else self.large

    def best_x_0(self, i: Tensor, x_t: Tensor) -> Tensor:
        """E[x_0 | x_t]: [N, D] for x_t [N, D] at the i-th visited steps, int64 [N]."""
        return times(self._best[i], x_t) + self._best_offset[i]

    def eps(self, i: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
        """How many deviations x_t is from its mean given x_0."""
        return (x_t - self.signal[i, None] * x_0) / self.noise[i, None]

    def x_t(self, i: Tensor, x_0: Tensor, eps: Tensor) -> Tensor:
        """The x_t that is `eps` deviations from its mean given x_0."""
        return self.signal[i, None] * x_0 + self.noise[i, None] * eps

    def mean_before(self, i: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
        """E[x before the step | x_t, x_0]."""
        return times(self._from_x_0[i], x_0) + times(self._from_x_t[i], x_t)

    def bits(self, i: Tensor, x_0: Tensor, x_t: Tensor, found: Tensor, log_variance: Tensor) -> Tensor:
        """Bits per dimension, [N], to send x before the step to someone who has x_t and thinks that x_0 is
        `found`; for the first step x_0 itself, one of 256 levels.
        """
        p = Normal(self.mean_before(i, x_t, found), (log_variance / 2).exp())
        q = Normal(self.mean_before(i, x_t, x_0), self.small[i, None].sqrt())
        below = torch.where(x_0 < 1 / 255 - 1, 0.0, p.cdf(x_0 - 1 / 255))
        above = torch.where(x_0 > 1 - 1 / 255, 1.0, p.cdf(x_0 + 1 / 255))
        first = (i == 0)[:, None]
        # the level's probability is not asked for where it could vanish
        level = -torch.where(first, above - below, 1.0).log()
        return torch.where(first, level, kl_divergence(q, p)).mean(1) / math.log(2)


def times(gains: Tensor, rows: Tensor) -> Tensor:
    """Each matrix [N, D, D] with its row [N, D]: [N, D]."""
    return (gains @ rows[:, :, None])[:, :, 0]


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
