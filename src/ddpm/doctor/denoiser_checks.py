"""What a network's output is taken to mean: objectives, variances, clipping and guidance."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.objectives import Objective
from ddpm.diffusion.variances import FixedSmall, Variance
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import BETAS, NUM_TIMESTEPS, Catalogue, Option
from ddpm.doctor.gaussian import Exact
from ddpm.doctor.process_checks import EXACT, short_steps
from ddpm.doctor.reference import (
    SHAPE,
    SIZE,
    VARIANCE_OUTPUT,
    GaussianNetwork,
    Inputs,
    as_images,
    exact,
    inputs_of,
    log_variance,
    output_for,
)


def cases(catalogue: Catalogue) -> Iterator[Case]:
    for option, schedule_option in product(catalogue["objective"], catalogue["schedule"]):
        objective, schedule = option.small(), schedule_option.small()
        if float(schedule.alphas_cumprod[-1]) == 0 and not objective.defined_at_zero_snr:
            continue
        for check, compared, measure in (
            ("target", "what the network learns with what the name means", target_error),
            ("inputs", "what the network sees and is given with what the name means", inputs_error),
            ("x_0", "x_0 and its error from the output, original and shortened chain", x_0_error),
            ("clipping", "an x_0 that overshoots, and its eps", clipping_error),
        ):
            measured = partial(measure, objective, schedule)
            yield Case(check, str(option), compared, f"{option} {schedule_option}", measured, EXACT)
    for option, schedule_option in product(catalogue["variance"], catalogue["schedule"]):
        compared = "log-variance with conditioning, original and shortened chain"
        measured = partial(variance_error, option.small(), schedule_option.small())
        yield Case("variance", str(option), compared, f"{option} {schedule_option}", measured, EXACT)
    for option, other in product(catalogue["guidance"], catalogue["objective"]):
        compared, measured = "x_0 with the class, without, and beyond", partial(guided_error, option, other)
        yield Case("guidance", str(option), compared, f"{option} {other}", measured, EXACT)
    for option in catalogue["guidance"]:
        for setting, error_of in (
            ("interval", interval_error), ("rescale", rescale_error), ("shape", shape_error),
        ):  # fmt: skip
            if setting in option.takes:
                measured, subject = partial(error_of, option), f"{option} guidance.{setting}"
                yield Case("guidance", str(option), "", subject, measured, EXACT)


def drawn(seed: int, *shape: int) -> Tensor:
    """Unit Gaussian noise, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noised(chain: Exact) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """i [K], x_0, eps and x_t [K, D]: one image at each visited step."""
    i = torch.arange(len(chain.steps))
    x_0, eps = 0.4 * drawn(1, len(i), SIZE), drawn(2, len(i), SIZE)
    return i, x_0, eps, chain.x_t(i, x_0, eps)


def original_and_short(schedule: NoiseSchedule) -> Iterator[tuple[NoiseSchedule, Exact]]:
    """The chain and a shortened one, with what is known of Gaussian data on each."""
    betas = tuple(schedule.betas.tolist())
    yield schedule, exact(None, betas)
    steps = short_steps(schedule)
    yield schedule.respaced(steps), exact(None, betas, tuple(steps))


def target_error(objective: Objective, schedule: NoiseSchedule) -> float:
    chain = exact(None, tuple(schedule.betas.tolist()))
    i, x_0, eps, x_t = noised(chain)
    found = objective.target(schedule, as_images(x_0), i, as_images(eps)).flatten(1)
    return distance(found, output_for(objective, schedule, chain, i, x_t, x_0))


def x_0_error(objective: Objective, schedule: NoiseSchedule) -> float:
    """Of x_0, and of the conversion of squared errors; on the shortened chain the network still is that of
    the original one.
    """
    original = exact(None, tuple(schedule.betas.tolist()))
    errors = []
    for chain_in_use, chain in original_and_short(schedule):
        i, x_0, _, x_t = noised(chain)
        timesteps = torch.tensor(chain.steps)
        right = as_images(output_for(objective, schedule, original, timesteps, x_t, x_0))
        x_t = as_images(x_t)
        found = objective.x_0(chain_in_use, x_t, i, right).flatten(1)
        # relative to how far x_0 can be seen in the output at all
        off = objective.x_0(chain_in_use, x_t, i, right + 1).flatten(1) - found
        digits = off.abs().clamp(min=1)
        squared = objective.x_0_error(chain_in_use, i, torch.ones(len(i), dtype=torch.float64))
        errors += [
            distance(found / digits, x_0 / digits),
            distance(squared / off[:, 0] ** 2, torch.ones_like(squared)),
        ]
    return max(errors)


def inputs_error(objective: Objective, schedule: NoiseSchedule) -> float:
    """Of what the network is called with, on the original chain and a shortened one."""
    errors = []
    for chain_in_use, chain in original_and_short(schedule):
        i, _, _, x_t = noised(chain)
        seen, given = objective.network_inputs(chain_in_use, as_images(x_t), i)
        scale, expected = inputs_of(objective, chain_in_use, chain)
        errors += [distance(seen.flatten(1), scale[:, None] * x_t), distance(given.double(), expected)]
    return max(errors)


def overshooting(
    objective: Objective, schedule: NoiseSchedule, variance: Variance
) -> tuple[Callable[..., Tensor], Tensor]:
    """A network that is sure of an x_0 beyond [-1, 1], and that x_0 [D]."""
    x_0 = torch.tensor([1.7, -0.4, -2.5, 0.9], dtype=torch.float64)
    chain = exact(None, tuple(schedule.betas.tolist()))

    inputs = Inputs(objective, schedule)

    def network(seen: Tensor, given: Tensor, labels: Tensor | None = None) -> Tensor:
        x_t, t = inputs(seen, given)
        said = output_for(objective, schedule, chain, t, x_t, x_0.expand(len(x_t), -1))
        parts = [as_images(said)]
        if variance.outputs:
            parts.append(as_images(VARIANCE_OUTPUT.expand(len(x_t), -1)))
        return torch.cat(parts, dim=1)

    return network, x_0


def clipping_error(objective: Objective, schedule: NoiseSchedule) -> float:
    errors = []
    for chain_in_use, chain in original_and_short(schedule):
        network, x_0 = overshooting(objective, schedule, FixedSmall())
        i, _, _, x_t = noised(chain)
        for clip, expected in ((True, x_0.clamp(-1, 1)), (0.6, x_0.clamp(-0.6, 0.6)), (False, x_0)):
            expected = expected.expand(len(i), -1)
            denoiser = Denoiser(network, Parametrization(objective, FixedSmall()), clip=clip)
            found = denoiser(chain_in_use, as_images(x_t), i)
            digits = 1 / chain.signal[:, None].clamp(1e-6, 1)
            errors += [
                distance(found.x_0.flatten(1) / digits, expected / digits),
                distance(found.eps.flatten(1), chain.eps(i, x_t, expected)),
            ]
    return max(errors)


def variance_error(variance: Variance, schedule: NoiseSchedule) -> float:
    errors = []
    for chain_in_use, chain in original_and_short(schedule):
        i = torch.arange(len(chain.steps))
        output = as_images(VARIANCE_OUTPUT.expand(len(i), -1))[:, : SHAPE[0] * variance.outputs]
        x_t = torch.zeros(len(i), *SHAPE, dtype=torch.float64)
        found = variance.log_variance(chain_in_use, x_t, i, output).expand_as(x_t).flatten(1)
        errors.append(distance(found, log_variance(variance, chain, chain_in_use)))
    return max(errors)


def guided(option: Option, objective: Objective, label: int | None, **settings: Any) -> tuple[Tensor, Tensor]:
    """The x_0 predicted at each step, and the best with that class: [T, D] each."""
    schedule = NoiseSchedule(BETAS)
    chain = exact(label, tuple(BETAS.tolist()))
    i, _, _, x_t = noised(chain)
    network, guidance = GaussianNetwork(objective, schedule, FixedSmall()), option.small(**settings)
    if guidance.needs_guide:  # one that knows of no class
        guidance.guide = lambda x_t, t, labels=None: network(x_t, t)
    denoiser = Denoiser(
        network,
        Parametrization(objective, FixedSmall()),
        clip=False,
        labels=None if label is None else torch.full((len(i),), label),
        guidance=guidance,
    )
    return denoiser(schedule, as_images(x_t), i).x_0.flatten(1), chain.best_x_0(i, x_t)


def guided_error(option: Option, other: Option) -> float:
    """Guided images lie on the line through those with the class and without it: scale says where. A guide
    that knows of no class leads there too.
    """
    objective = other.small()
    _, without = guided(option, objective, None)
    found, expected = guided(option, objective, None)
    errors = [distance(found, expected)]
    if "scale" in option.takes:
        for scale in (0.0, 1.0, 3.5):
            found, conditional = guided(option, objective, 1, scale=scale)
            errors.append(distance(found, without + scale * (conditional - without)))
    found, conditional = guided(option, objective, 1)
    built = option.small()
    if not (built.needs_unconditional or built.needs_guide):
        errors.append(distance(found, conditional))
    elif "scale" in option.takes:
        errors.append(distance(found, without + built.scale * (conditional - without)))
    return max(errors)


def _raw(option: Option, **settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Guided outputs at every t with a part for the variance; those with the class and without it."""
    count = NUM_TIMESTEPS
    conditional, without = drawn(3, count, 4, 1, 2), drawn(4, count, 4, 1, 2)
    x_t, t, labels = drawn(5, count, 2, 1, 2), torch.arange(count), torch.zeros(count, dtype=torch.int64)
    guidance = option.small(**settings)

    def output_for(labels: Tensor | None, network: object = None) -> Tensor:
        return without if labels is None or network is guide else conditional

    def guide(*_: Tensor) -> Tensor:
        return without

    if guidance.needs_guide:
        guidance.guide = guide
    return guidance(output_for, x_t, t, labels, count), conditional, without


def shape_error(option: Option) -> float:
    """A scale that varies over t: none beyond 1 at the noisiest, falling with t, and as much in all."""
    u = torch.arange(NUM_TIMESTEPS, dtype=torch.float64) / (NUM_TIMESTEPS - 1)
    errors = []
    for shape, factor in (("linear", 2 - 2 * u), ("cosine", 2 * torch.cos(math.pi * u / 2) ** 2)):
        found, conditional, without = _raw(option, shape=shape, scale=3.0)
        weight = (1 + 2 * factor).view(-1, 1, 1, 1)
        expected = without + weight * (conditional - without)
        errors.append(distance(found[:, :2], expected[:, :2]))
    return max(errors)


def interval_error(option: Option) -> float:
    guided_everywhere, conditional, _ = _raw(option)
    found, _, _ = _raw(option, interval=[9, 20])
    expected = conditional.clone()
    expected[9:21] = guided_everywhere[9:21]
    return distance(found, expected)


def rescale_error(option: Option) -> float:
    """Fully rescaled, a guided output has the spread of the one with the class; half, it lies halfway. The
    output for the variance is the one with the class.
    """
    plain, conditional, _ = _raw(option)
    full, half = _raw(option, rescale=1.0)[0], _raw(option, rescale=0.5)[0]
    spread = [value[:, :2].flatten(1).std(1) for value in (full, conditional)]
    ratio = full[:, :2] / plain[:, :2]
    return max(
        distance(*spread),
        distance(ratio.flatten(1).std(1), torch.zeros(NUM_TIMESTEPS, dtype=torch.float64)),
        distance(half, (full + plain) / 2),
        distance(full[:, 2:], conditional[:, 2:]),
    )
