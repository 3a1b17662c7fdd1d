"""Training: the loss of every combination, and how timesteps are drawn."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Normal

from ddpm.diffusion import NoiseSchedule, Parametrization
from ddpm.diffusion.timesteps import (
    LogitNormal,
    LogNormal,
    LossSecondMoment,
    Stratified,
    Timesteps,
    Uniform,
)
from ddpm.diffusion.weighting import Noised
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import BETAS, Catalogue, Combination, Option
from ddpm.doctor.denoiser_checks import drawn, noised
from ddpm.doctor.gaussian import CLEAN
from ddpm.doctor.reference import (
    SIZE,
    VARIANCE_OUTPUT,
    VARIANCES,
    WEIGHTINGS,
    Errors,
    GaussianNetwork,
    as_images,
    exact,
    output_for,
)

CLOSE = 1e-6
"""Allowed where logarithms of small probabilities or squares of large ratios are compared."""

DRAWS = 100_000
"""Evenly spaced uniform numbers, which are turned into timesteps."""

EVENLY = (torch.arange(DRAWS, dtype=torch.float64) + 0.5) / DRAWS


def _gaussian(timesteps: Any) -> Tensor:
    """Quantiles of the Gaussian whose mean and deviation these have."""
    return timesteps.mean + timesteps.std * Normal(0.0, 1.0).icdf(EVENLY)


def _share(t: Tensor, losses: Tensor) -> Tensor:
    """T times how often each step is among these."""
    return torch.bincount(t, minlength=len(losses)).double() / len(t) * len(losses)


def _by_place(timesteps: Any, schedule: NoiseSchedule, losses: Tensor) -> Tensor:
    return _share((torch.sigmoid(_gaussian(timesteps)) * len(losses)).long(), losses)


def _by_noise_level(timesteps: Any, schedule: NoiseSchedule, losses: Tensor) -> Tensor:
    left = (1 - schedule.betas).cumprod(0)
    levels = ((1 - left) / left).log() / 2
    return _share(torch.bucketize(_gaussian(timesteps), (levels[1:] + levels[:-1]) / 2), losses)


PROBABILITIES: dict[type, Callable[[Any, NoiseSchedule, Tensor], Tensor]] = {
    Uniform: lambda timesteps, schedule, losses: torch.ones_like(losses),
    Stratified: lambda timesteps, schedule, losses: torch.ones_like(losses),
    LossSecondMoment: lambda timesteps, schedule, losses: (
        (1 - timesteps.uniform_share) * losses / losses.mean() + timesteps.uniform_share
    ),
    LogitNormal: _by_place,
    LogNormal: _by_noise_level,
}
"""(how timesteps are drawn, the chain, losses [T] that were seen again and again) -> T p(t)."""


def cases(catalogue: Catalogue, combinations: Sequence[Combination]) -> Iterator[Case]:
    for parts in combinations:
        weighting = str(parts["weighting"])
        subject = " ".join(str(parts[g]) for g in ("schedule", "objective", "variance", "weighting"))
        if type(parts["weighting"].small()) in WEIGHTINGS and type(parts["variance"].small()) in VARIANCES:
            compared = "value and gradient with errors and KL"
            yield Case("loss", weighting, compared, subject, partial(loss_error, parts), CLOSE)
        compared = "gradient at the best output"
        yield Case("minimum", weighting, compared, subject, partial(minimum_error, parts), CLOSE)
        subject = " ".join(str(parts[g]) for g in ("timesteps", "schedule", "objective", "weighting"))
        compared = "the loss over draws with its mean over t, or over what is drawn"
        expected = partial(expectation_error, parts)
        yield Case("mean loss", str(parts["timesteps"]), compared, subject, expected, 1e-3)
    for option in catalogue["timesteps"]:
        for seen in (False, True):
            subject = f"{option} {'after' if seen else 'before'} it has seen losses"
            compared, often = "how often t is drawn with its weight", partial(drawn_error, option, seen)
            yield Case("timesteps", str(option), compared, subject, often, 4 * len(BETAS) / DRAWS)
        subject = f"{option} on several devices"
        yield Case("timesteps", str(option), "", subject, partial(share_error, option), 1e-12)


def _built(parts: Combination) -> tuple[Any, ...]:
    """A weighting with parameters has learned something."""
    built = tuple(parts[group].small() for group in ("schedule", "objective", "variance", "weighting"))
    with torch.no_grad():
        for parameter in getattr(built[-1], "parameters", tuple)():
            parameter.copy_(torch.linspace(-0.4, 0.5, parameter.numel()).view_as(parameter))
    return built


def _loss(parts: Combination) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The project's loss of a wrong output at each t, [T]; the output's two parts; and its error [T, D]."""
    schedule, objective, variance, weighting = _built(parts)
    chain = exact(None, tuple(schedule.betas.tolist()))
    i, x_0, eps, x_t = noised(chain)
    # where there is hardly noise, smaller: a level's probability is not to vanish in the reference
    error = 0.05 * drawn(6, len(i), SIZE) * (20 * chain.noise[:, None]).clamp(max=1)
    mean = (output_for(objective, schedule, chain, i, x_t, x_0) + error).requires_grad_()
    spread = VARIANCE_OUTPUT.repeat(len(i), 1).requires_grad_()
    output = torch.cat([as_images(mean), as_images(spread)[:, : variance.outputs * 2]], dim=1)
    parametrization = Parametrization(objective, variance)
    shown = Noised(as_images(x_0), i, as_images(eps), as_images(x_t))
    return weighting.losses(parametrization, schedule, shown, output), mean, spread, error


def loss_error(parts: Combination) -> float:
    schedule, objective, variance, weighting = _built(parts)
    found, mean, spread, _ = _loss(parts)
    gradients = torch.autograd.grad(found.sum(), (mean, spread), allow_unused=True)
    chain = exact(None, tuple(schedule.betas.tolist()))
    i, x_0, eps, x_t = noised(chain)
    right = output_for(objective, schedule, chain, i, x_t, x_0)
    slope = (output_for(objective, schedule, chain, i, x_t, x_0 + 1) - right).mean(1, keepdim=True)
    x_0_found = x_0 + (mean - right) / slope
    log_variance = VARIANCES[type(variance)](chain, spread).expand_as(x_0)
    t = schedule.num_timesteps
    errors = Errors(
        output=(mean - right).square().mean(1),
        x_0=(x_0_found - x_0).square().mean(1),
        eps=(chain.eps(i, x_t, x_0_found) - eps).square().mean(1),
        sigma=chain.noise / chain.signal,
        bound=t * chain.bits(i, x_0, x_t, x_0_found, log_variance),
        bound_of_variance=t * chain.bits(i, x_0, x_t, x_0_found.detach(), log_variance),
    )
    expected = WEIGHTINGS[type(weighting)](weighting, errors)
    expected_gradients = torch.autograd.grad(expected.sum(), (mean, spread), allow_unused=True)
    compared = [distance(found, expected)]
    for ours, theirs in zip(gradients, expected_gradients, strict=True):
        nothing = torch.zeros_like(mean)
        compared.append(distance(nothing if ours is None else ours, nothing if theirs is None else theirs))
    return max(compared)


def minimum_error(parts: Combination) -> float:
    """Averaged over x_0 given x_t, the loss falls in no direction from the best output: true of any weighting
    from which a network learns what it is asked for. At t = 0 the bound is of another kind.
    """
    schedule, objective, variance, weighting = _built(parts)
    chain = exact(None, tuple(schedule.betas.tolist()))
    _, _, _, x_t = noised(chain)
    network = GaussianNetwork(objective, schedule, variance)
    parametrization = Parametrization(objective, variance)
    worst = 0.0
    count = 2 * SIZE
    for step in range(1, schedule.num_timesteps, 5):
        t = torch.full((count,), step)
        law = chain.noising.given(CLEAN, step)
        values, axes = torch.linalg.eigh(law.covariance)
        offsets = (axes * (SIZE * values.clamp(min=0)).sqrt()).T  # points with the law's mean and covariance
        seen = x_t[step].expand(count, -1)
        x_0 = law.mean(seen) + torch.cat([offsets, -offsets])
        output = network(*objective.network_inputs(schedule, as_images(seen), t)).requires_grad_()
        shown = Noised(as_images(x_0), t, as_images(chain.eps(t, seen, x_0)), as_images(seen))
        losses = weighting.losses(parametrization, schedule, shown, output)
        (gradient,) = torch.autograd.grad(losses.sum(), output)
        gradient = gradient[:, : as_images(seen).shape[1]]
        worst = max(worst, float(gradient.mean(0).abs().max() / gradient.abs().max().clamp(min=1e-300)))
    return worst


def expectation_error(parts: Combination) -> float:
    """Relative error of the mean over many draws, once the losses are known to whoever adapts to them."""
    losses = _loss(parts)[0].detach()
    timesteps, schedule = parts["timesteps"].small(), parts["schedule"].small()
    _show(timesteps, schedule, losses)
    t = timesteps.draw(EVENLY, schedule)
    found = (timesteps.weight(t, schedule) * losses[t]).mean()
    share = torch.ones_like(losses)
    if timesteps.reweights and type(timesteps) in PROBABILITIES:
        share = PROBABILITIES[type(timesteps)](timesteps, schedule, losses)
    elif timesteps.reweights:
        share = _share(t, losses)
    return float((found - (share * losses).mean()).abs() / (share * losses).abs().mean())


def _show(timesteps: Timesteps, schedule: NoiseSchedule, losses: Tensor) -> None:
    for _ in range(getattr(timesteps, "history", 1)):
        timesteps.observe(torch.arange(len(losses)), losses, schedule)


def drawn_error(option: Option, seen: bool) -> float:
    """Total variation: between how often a step is drawn and 1 / (T weight), unless the drawing is itself a
    weighting, and between that and what the option's name means.
    """
    schedule, count = NoiseSchedule(BETAS), len(BETAS)
    losses = 0.2 + torch.arange(count, dtype=torch.float64).sin() ** 2
    errors = []
    for changes in ({}, {"unbiased": True}) if "unbiased" in option.takes else ({},):
        timesteps = option.small(**changes)
        if seen:
            _show(timesteps, schedule, losses)
        errors.append(_frequency_error(timesteps, schedule, losses if seen else torch.ones_like(losses)))
    return max(errors)


def _frequency_error(timesteps: Timesteps, schedule: NoiseSchedule, losses: Tensor) -> float:
    count = len(losses)
    t = timesteps.draw(EVENLY, schedule)
    often = torch.bincount(t, minlength=count).double() / DRAWS  # raises where t is below 0
    if len(often) > count:
        return float("inf")
    weight = timesteps.weight(torch.arange(count), schedule).double()
    if timesteps.reweights:
        error = float((weight - 1).abs().sum())
    else:
        error = float((often - 1 / (count * weight)).abs().sum())
    meaning = PROBABILITIES.get(type(timesteps))
    if meaning is not None:
        expected = meaning(timesteps, schedule, losses) / count
        error = max(error, float((often - expected).abs().sum()))
    return error


def share_error(option: Option) -> float:
    """Two devices draw for their parts of a batch what one draws for all; and what is stratified takes every
    step once in a batch as long as the chain.
    """
    timesteps, count, schedule = option.small(), len(BETAS), NoiseSchedule(BETAS)
    u = torch.rand(count, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    together = timesteps.draw(u, schedule)
    halves = [
        timesteps.draw(u[part.start : part.stop], schedule, part, count)
        for part in (range(25), range(25, count))
    ]
    error = distance(torch.cat(halves).double(), together.double())
    if type(timesteps) is Stratified:
        error = max(error, distance(together.double(), torch.arange(count, dtype=torch.float64)))
    edges = timesteps.draw(torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), schedule)
    return max(error, 0.0 if bool(((edges >= 0) & (edges < count)).all()) else 1.0)
