"""The variational bound on -log2 p(x_0), term by term, in bits per dimension (Ho et al. 2020, eq. 5).

x_0 stands for images of 256 levels, spread over [-1, 1]. All Gaussians are diagonal.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion.decoder import discretized_log_likelihood
from ddpm.diffusion.denoiser import Denoise
from ddpm.diffusion.parametrization import Prediction
from ddpm.diffusion.process import Noise, NoiseSchedule, q_sample


class Bound(NamedTuple):
    """The bound of a batch, bits per dimension, with the terms that were computed.

    Attributes:
        total: [B], of which `standard_error` says how well it is known.
        prior: [B], what it takes to send x_T.
        terms: [K, B], L_t at `steps`: what it takes to send x_{t-1} to someone who has x_t.
        decoder: [B], L_0 of the paper: what it takes to send x_0 to someone who has x_1 (its t = 0).
        steps: int64 [K, B], each in 1 ... T-1.
        squared_error: [1 + K, B] of the predicted x_0, mean over pixels: at t = 0, then at `steps`.
        standard_error: [B], of `total`, for not all steps having been computed: 0 where they were, NaN where
            only one was.
    """

    total: Tensor
    prior: Tensor
    terms: Tensor
    decoder: Tensor
    steps: Tensor
    squared_error: Tensor
    standard_error: Tensor


@torch.inference_mode()
def bound(
    denoiser: Denoise, schedule: NoiseSchedule, x_0: Tensor, *, noise: Noise, steps: Tensor | None = None
) -> Bound:
    """An unbiased estimate of the bound for each image, from one x_t at each step.

    Args:
        denoiser: used at t = 0 and each of the steps.
        schedule: the chain in use.
        x_0: [B, C, H, W], levels k of 256 as k / 127.5 - 1.
        noise: of x_t; index 0 is for t = 0, index k for row k - 1 of the steps.
        steps: int64 [K, B], for each image K different ones of 1 ... T-1, each as likely as any other (see
            `some_steps`); by default all of them.

    Raises:
        ValueError: where the chain has more than one step, and none is to be computed.
    """
    most, batch = schedule.num_timesteps - 1, len(x_0)
    if steps is None:
        steps = torch.arange(1, most + 1, device=x_0.device)[:, None].expand(-1, batch)
    if most and not len(steps):
        raise ValueError("the bound needs one step or more beside t = 0")
    rows, errors = [], []
    first = torch.zeros(batch, dtype=torch.int64, device=x_0.device)
    for index, t in enumerate([first, *steps]):
        x_t = q_sample(schedule, x_0, t, noise(index, x_0))
        prediction = denoiser(schedule, x_t, t)
        rows.append(bound_term(schedule, x_0, t, prediction))
        errors.append((prediction.x_0 - x_0).square().flatten(1).mean(1))
    decoder, terms = rows[0], torch.stack(rows)[1:]
    prior = prior_term(schedule, x_0)
    count = len(terms)
    middle = most * terms.mean(0) if count else torch.zeros_like(decoder)
    if count == most:
        standard_error = torch.zeros_like(decoder)
    else:  # of a mean of draws without replacement
        spread = terms.var(0, correction=1) if count > 1 else torch.full_like(decoder, math.nan)
        standard_error = most * (spread / count * (1 - count / most)).sqrt()
    return Bound(
        total=prior + middle + decoder,
        prior=prior,
        terms=terms,
        decoder=decoder,
        steps=steps,
        squared_error=torch.stack(errors),
        standard_error=standard_error,
    )


def some_steps(u: Tensor, count: int) -> Tensor:
    """`count` different steps of 1 ... T-1 for each image, any as likely as any other: int64 [count, B].

    Args:
        u: uniform numbers [T - 1, B].
        count: 1 ... T-1.

    Raises:
        ValueError: where there are not that many.
    """
    if not 1 <= count <= len(u):
        raise ValueError(f"{count} steps: a chain of {len(u) + 1} has 1 to {len(u)} of them beside t = 0")
    return u.argsort(0)[:count] + 1


def rate_distortion(found: Bound) -> tuple[Tensor, Tensor]:
    """Rate and distortion at each t of a chain, mean over images (Ho et al. 2020, figure 5).

    Args:
        found: the bound with all its terms.

    Returns:
        rate [T], bits per dimension that have been sent when x_t is known, falling with t; and distortion
        [T], root mean squared error on [0, 255] of the x_0 predicted from it.

    Raises:
        ValueError: where steps are missing.
    """
    num_timesteps = len(found.terms) + 1
    in_order = torch.arange(1, num_timesteps, device=found.steps.device)[:, None]
    if (found.steps != in_order).any() or (found.standard_error != 0).any():
        raise ValueError("rate and distortion need the terms of all steps, in their order")
    nothing = torch.zeros_like(found.prior)[None]
    sent_later = torch.cat([found.terms, nothing]).flip(0).cumsum(0).flip(0)  # of row t: the steps above t
    rate = (found.prior + sent_later).mean(1)
    return rate, 127.5 * found.squared_error.mean(1).sqrt()


def prior_term(schedule: NoiseSchedule, x_0: Tensor) -> Tensor:
    """KL divergence of q(x_T | x_0) and a unit Gaussian: [B] for x_0 [B, C, H, W]."""
    last = torch.full((len(x_0),), schedule.num_timesteps - 1, device=x_0.device)
    mean = q_sample(schedule, x_0, last, torch.zeros_like(x_0))
    log_variance = (2 * schedule.lookup("sqrt_one_minus_alphas_cumprod", last, x_0).log()).expand_as(mean)
    return _bits_per_dim(_kl(mean, log_variance, torch.zeros_like(log_variance)))


def bound_term(
    schedule: NoiseSchedule, x_0: Tensor, t: Tensor, prediction: Prediction, *, levels: bool = True
) -> Tensor:
    """L_t of each image: [B] for x_0 [B, C, H, W], `t` int64 [B] and what was predicted from x_t.

    For t > 0 the KL divergence of q(x_{t-1} | x_t, x_0) and p(x_{t-1} | x_t); at t = 0, -log2 p(x_0 | x_1),
    of the level that x_0 is, or where it is none of 256 levels (`levels` False) of the density at x_0.
    """
    # Each term is given its own samples, and harmless numbers in place of the others. What the last `where`
    # drops would reach the gradient as 0 times infinity if it were not finite. To select the samples by index
    # would compute less, but wait for the device to count them.
    first = (t == 0).view(-1, *[1] * (x_0.ndim - 1))
    log_variance = prediction.log_variance.expand_as(x_0)
    # the two means differ by x_0 alone; to subtract one from the other would lose digits
    difference = schedule.lookup("posterior_mean_x_0", t, x_0) * (x_0 - prediction.x_0)
    posterior = schedule.lookup("log_posterior_variance", t, x_0)
    later = _kl(torch.where(first, 0, difference), posterior, torch.where(first, posterior, log_variance))
    log_likelihood = discretized_log_likelihood if levels else _log_density
    decoder = -log_likelihood(
        x_0, torch.where(first, prediction.x_0, x_0), torch.where(first, log_variance, 0)
    )
    return _bits_per_dim(torch.where(first, decoder, later))


def _log_density(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Natural log of the density of a Gaussian at x_0."""
    return -0.5 * (math.log(2 * math.pi) + log_variance + (x_0 - mean).square() * (-log_variance).exp())


def _kl(difference: Tensor, log_variance: Tensor, log_variance_of_p: Tensor) -> Tensor:
    """KL divergence of two Gaussians in nats, whose means lie `difference` apart."""
    return 0.5 * (
        log_variance_of_p
        - log_variance
        + torch.expm1(log_variance - log_variance_of_p)
        + difference.square() * (-log_variance_of_p).exp()
    )


def _bits_per_dim(nats: Tensor) -> Tensor:
    return nats.flatten(1).mean(1) / math.log(2)
