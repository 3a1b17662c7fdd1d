"""The variational bound: its terms against KL divergences, its total against the entropy of the data."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.likelihood import bound
from ddpm.diffusion.objectives import X0
from ddpm.diffusion.variances import Variance
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import BETAS, Catalogue, Combination, Option
from ddpm.doctor.denoiser_checks import drawn
from ddpm.doctor.gaussian import CLEAN, Exact, Gaussian, Noising
from ddpm.doctor.loss_checks import CLOSE
from ddpm.doctor.reference import SIZE, GaussianNetwork, as_images, exact, log_variance

IMAGES = 5


def cases(catalogue: Catalogue, combinations: Sequence[Combination]) -> Iterator[Case]:
    examined = set()
    for parts in combinations:
        text = " ".join(str(parts[group]) for group in ("variance", "schedule", "objective"))
        for num_steps in (None, 13):
            chain = parts["sampler"].small(num_steps=num_steps).chain(parts["schedule"].small())
            if (case := (text, tuple(chain.timesteps.tolist()))) in examined:
                continue  # of all that a sampler is, the bound has the steps that it visits
            examined.add(case)
            subject = f"{text} {parts['sampler']} {num_steps or ''}"
            measured = partial(terms_error, parts, num_steps)
            yield Case(
                "bound", str(parts["variance"]), "every term with a KL divergence", subject, measured, CLOSE
            )
    for option in catalogue["variance"]:
        compared = "bits for 256 levels with the fewest there are"
        yield Case("entropy", str(option), compared, str(option), partial(entropy_error, option), 2e-3)


def terms_error(parts: Combination, num_steps: int | None) -> float:
    """Of the bound of a few images, on the chain that the sampler visits."""
    schedule, objective, variance = (parts[g].small() for g in ("schedule", "objective", "variance"))
    chain_in_use = parts["sampler"].small(num_steps=num_steps).chain(schedule)
    chain = exact(None, tuple(schedule.betas.tolist()), tuple(chain_in_use.timesteps.tolist()))
    x_0 = 0.4 * drawn(11, IMAGES, SIZE)
    x_0[0, 0], x_0[0, 1] = -1.0, 1.0  # the outer levels
    network = GaussianNetwork(objective, schedule, variance)
    found = bound(
        Denoiser(network, Parametrization(objective, variance), clip=False),
        chain_in_use,
        as_images(x_0),
        noise=lambda index, like: drawn(100 + index, *like.shape),
    )
    spread = log_variance(variance, chain, chain_in_use)
    count = len(chain.steps)
    i = torch.arange(count).repeat_interleave(IMAGES)
    clean = x_0.repeat(count, 1)
    eps = [drawn(100 + index, *as_images(x_0).shape).flatten(1) for index in range(count)]
    x_t = chain.x_t(i, clean, torch.cat(eps))
    best = chain.best_x_0(i, x_t)
    terms = chain.bits(i, clean, x_t, best, spread[i]).view(-1, IMAGES)
    squared = (best - clean).square().mean(1).view(-1, IMAGES)
    law = chain.noising.given(chain.steps[-1], CLEAN)
    last = Normal(law.mean(x_0), law.covariance.diagonal().sqrt())
    prior = kl_divergence(last, Normal(torch.zeros_like(x_0), torch.ones_like(x_0))).mean(1) / math.log(2)
    expected = torch.cat([prior[None], terms])
    return max(
        distance(torch.stack([found.prior, found.decoder, *found.terms]), expected),
        distance(found.total, expected.sum(0)),
        distance(found.squared_error, squared),
    )


def entropy_error(option: Option) -> float:
    """For data of 256 levels, bell-shaped, and the best mean, summed over levels and noise: with the exact
    variance the bound is the entropy and the KL divergence of the prior. A variance that cannot be the exact
    one may only need more bits.
    """
    variance = option.small()
    data = Gaussian(torch.tensor([0.1], dtype=torch.float64), torch.tensor([[0.04]], dtype=torch.float64))
    schedule = NoiseSchedule(BETAS)
    chain = Exact(Noising(data, BETAS.tolist()))
    levels = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    share = _level_shares(levels, data)
    entropy = float(-(share * share.log2()).sum())
    nodes = torch.linspace(-5, 5, 41, dtype=torch.float64)
    weights = torch.exp(-nodes.square() / 2)
    weights = weights / weights.sum()
    x_0, eps = (part.reshape(-1, 1, 1, 1) for part in torch.meshgrid(levels, nodes, indexing="ij"))
    wanted = [chain.noising.given(CLEAN if t == 0 else t - 1, t).covariance for t in chain.steps]
    output = _output_for(variance, schedule, torch.cat(wanted).log()[:, 0])

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        best = as_images(chain.best_x_0(t, x_t.flatten(1)), (1, 1, 1))
        return torch.cat([best, output[t].view(-1, 1, 1, 1)], dim=1) if variance.outputs else best

    denoiser = Denoiser(network, Parametrization(X0(), variance), clip=False)
    found = bound(denoiser, schedule, x_0, noise=lambda index, like: eps)
    total = float((found.total * torch.outer(share, weights).flatten()).sum())
    last = chain.noising.marginal(schedule.num_timesteps - 1)
    prior = kl_divergence(Normal(last.mean, last.covariance[0].sqrt()), Normal(0.0, 1.0))
    least = entropy + float(prior) / math.log(2)
    return abs(total - least) if variance.outputs else max(0.0, least - total)


def _level_shares(levels: Tensor, data: Gaussian) -> Tensor:
    edges = torch.cat([levels[:1] - math.inf, (levels[1:] + levels[:-1]) / 2, levels[-1:] + math.inf])
    return Normal(data.mean, data.covariance[0].sqrt()).cdf(edges).diff().clamp(min=1e-300)


def _output_for(variance: Variance, schedule: NoiseSchedule, wanted: Tensor) -> Tensor:
    """The output [T] that a variance which follows it on a line reads as the log-variances wanted."""
    t = torch.arange(len(wanted))
    x_t = torch.zeros(len(t), 1, 1, 1, dtype=torch.float64)
    at_0, at_1 = (
        variance.log_variance(schedule, x_t, t, torch.full_like(x_t, value)).flatten() for value in (0.0, 1.0)
    )
    return (wanted - at_0) / (at_1 - at_0)
