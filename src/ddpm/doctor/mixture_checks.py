"""A mixture of Gaussians, which no chain propagates exactly: do samples land where they should?"""

import math
from collections.abc import Iterator, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.distributions import Normal

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.objectives import V
from ddpm.diffusion.variances import FixedSmall
from ddpm.doctor.case import Case
from ddpm.doctor.combinations import Catalogue, Option
from ddpm.doctor.gaussian import CLEAN, Gaussian, Noising
from ddpm.doctor.reference import as_images

WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
MEANS = torch.tensor([-0.7, 0.0, 0.6], dtype=torch.float64)
DEVIATIONS = torch.tensor([0.06, 0.1, 0.08], dtype=torch.float64)
NOISE_LEVELS = torch.linspace(4e-4, 0.07, 200, dtype=torch.float64)
"""Betas of the chain."""

SAMPLES = 4001


class Mixture:
    """What is known of a mixture at the steps of a chain.

    Args:
        betas: of the chain.
    """

    def __init__(self, betas: Sequence[float]):
        self.parts = [
            Noising(Gaussian(mean.view(1), deviation.square().view(1, 1)), betas)
            for mean, deviation in zip(MEANS, DEVIATIONS, strict=True)
        ]

    def noising(self, t: int) -> tuple[float, float]:
        """Signal and noise of x_t, which are the same for every component."""
        return self.parts[0].signal(t), self.parts[0].noise(t)

    def best_x_0(self, t: int, x_t: Tensor) -> Tensor:
        """E[x_0 | x_t], [N, 1]: each component's, weighed by how likely it is given x_t (Bayes)."""
        laws = [part.marginal(t) for part in self.parts]
        log_shares = [
            weight.log() + Normal(law.mean, law.covariance[0].sqrt()).log_prob(x_t)
            for weight, law in zip(WEIGHTS, laws, strict=True)
        ]
        shares = torch.cat(log_shares, dim=1).softmax(1)
        best = torch.cat([part.given(CLEAN, t).mean(x_t) for part in self.parts], dim=1)
        return (shares * best).sum(1, keepdim=True)


def cases(catalogue: Catalogue) -> Iterator[Case]:
    for option in catalogue["sampler"]:
        compared = "shares, means and deviations of three components"
        yield Case("mixture", str(option), compared, str(option), partial(mixture_error, option), 0.03)


@cache
def _mixture() -> Mixture:
    return Mixture(NOISE_LEVELS.tolist())


def mixture_error(option: Option) -> float:
    """Of samples from evenly spaced quantiles of noise; noise on the way is drawn."""
    schedule = NoiseSchedule(NOISE_LEVELS)
    mixture = _mixture()

    objective = V()

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        (step,) = set(t.tolist())
        x_0 = as_images(mixture.best_x_0(step, x_t.flatten(1)), (1, 1, 1))
        signal, noise = mixture.noising(step)
        eps = (x_t - signal * x_0) / noise
        return objective.target(schedule, x_0, t, eps)

    quantiles = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    x_t = Normal(0.0, 1.0).icdf(quantiles).view(-1, 1, 1, 1)
    generator = torch.Generator().manual_seed(12)

    def fresh(t: int, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    sampler = option.small()
    denoiser = Denoiser(network, Parametrization(objective, FixedSmall()), clip=True)
    found = sampler(denoiser, schedule, x_t, noise=fresh).flatten()
    nearest = (found[:, None] - MEANS).abs().argmin(1)
    errors = []
    for k in range(len(WEIGHTS)):
        of_it = found[nearest == k]
        if len(of_it) < 2:
            return math.inf
        errors += [
            len(of_it) / SAMPLES - float(WEIGHTS[k]),
            float(of_it.mean() - MEANS[k]),
            float(of_it.std() - DEVIATIONS[k]),
        ]
    return max(map(abs, errors))
