"""Reverse processes on Gaussian data: their exact moments, and their orders of accuracy."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.samplers import (
    DDIM,
    DEIS,
    Ancestral,
    DDIMInversion,
    DPMSolver,
    FlowHeun,
    Heun,
    Sampler,
    Trajectory,
)
from ddpm.doctor.affine import law_distance, map_distance, moved, visited
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import BETAS, Catalogue, Combination, Option
from ddpm.doctor.denoiser_checks import drawn, overshooting
from ddpm.doctor.gaussian import CLEAN, Exact, Gaussian, Noising, probability_flow, standard
from ddpm.doctor.process_checks import EXACT
from ddpm.doctor.reference import (
    DATA,
    SIZE,
    VARIANCE_OUTPUT,
    GaussianNetwork,
    ReferenceDenoiser,
    as_images,
    exact,
    log_variance,
)
from ddpm.doctor.spacing_checks import SPACINGS

ORDERS: dict[type, int] = {Ancestral: 1, DDIM: 1, DPMSolver: 2, Heun: 2, FlowHeun: 2, DEIS: 2}
"""Order of accuracy in the number of steps; that of a multistep method is held down by its first two steps.
These samplers also keep q(x_t | x_0) exactly where x_0 is known. Someone else's has to be of first order.
"""

LONG = torch.linspace(1e-4, 0.06, 298, dtype=torch.float64)
"""Betas of a chain with room for coarse and fine steps: 27, 99 and 297 of 11, 3 and 1."""

NUM_STEPS = (28, 100, 298)


def cases(catalogue: Catalogue, combinations: Sequence[Combination]) -> Iterator[Case]:
    for option in catalogue["sampler"]:
        for name, sampler in _variants(option):
            yield from _exact_cases(option, name, sampler, catalogue["schedule"])
    for option in catalogue["sampler"]:
        if "num_steps" in option.takes:
            compared, subject = "how fast the error falls with the steps", f"{option} at {NUM_STEPS} steps"
            yield Case("order", str(option), compared, subject, partial(order_error, option), 0.2)
        if "eta" in option.takes:
            errors = cache(partial(inversion_errors, option))
            for part, (text, allowed) in enumerate(
                (
                    ("distance of x_0 after a round trip", 1e-3),
                    ("order of the round trip", 0.2),
                    ("distance of x_t from the ODE", 0.05),
                )
            ):
                compared = "x_0 encoded and decoded; x_t with the ODE; both with the reference denoiser"
                measured = partial(_part, errors, part)
                yield Case("inversion", str(option), compared, f"{option} {text}", measured, allowed)
    spacings = {str(option): cycle(SPACINGS) for option in catalogue["sampler"]}
    for parts in combinations:
        option = parts["sampler"]
        name = next(spacings[str(option)])  # so that each sampler meets each
        few = {"num_steps": 13, "spacing": SPACINGS[name][0]}
        short = {key: value for key, value in few.items() if key in option.takes}
        # the shortened chain is the cheaper one to clip on, but where it begins below the noisiest step
        clipped = {} if option.small(**short).spacing.may_end_early else short
        of_all = " ".join(str(parts[g]) for g in ("sampler", "schedule", "objective", "variance", "guidance"))
        for check, compared, measure, settings in (
            ("reverse process", "the affine map with that of a reference denoiser", combined_error, {}),
            ("reverse process", "", combined_error, short),
            ("clipped process", "every x_t, where x_0 overshoots", clipped_error, clipped),
        ):
            text = of_all + "".join(f" sampler.{key}={value}" for key, value in settings.items())
            yield Case(check, str(option), compared, text, partial(measure, parts, settings), EXACT)
        if "eta" in option.takes:
            text = " ".join(map(str, parts.values()))
            yield Case("inversion", str(option), "", text, partial(encoded_error, parts), EXACT)


def _part(errors: Callable[[], tuple[float, ...]], part: int) -> float:
    return errors()[part]


def _exact_cases(option: Option, name: str, sampler: Sampler, schedules: Sequence[Option]) -> Iterator[Case]:
    """What is known of this sampler beyond its order, on every schedule that it runs on."""
    if type(sampler) not in ORDERS:
        return
    checks = [("known x_0", "every x_t with q(x_t | x_0)", known_x_0_error)]
    if expected_noise(sampler) is not None:
        checks.append(("fresh noise", "its variance with the one it should have", fresh_noise_error))
    if draws_from_posterior(sampler):
        checks.append(("moments", "of every x_t with what the chain predicts", moments_error))
    if obeys_variance(sampler):
        checks.append(("moments", "", unit_gaussian_error))
    for schedule_option in schedules:
        schedule = schedule_option.small()
        if _runs(sampler, schedule):
            for check, compared, measure in checks:
                measured = partial(measure, sampler, schedule)
                yield Case(check, str(option), compared, f"{name} {schedule_option}", measured, EXACT)


def _variants(option: Option) -> Iterator[tuple[str, Sampler]]:
    """On all steps and on fewer, and with the settings of randomness that change the formula."""
    settings: list[dict[str, float]] = [{}, {"num_steps": 13}]
    if "eta" in option.takes:
        settings += [{"eta": 0.5}, {"eta": 1.0, "num_steps": 13}, {"eta": 1.0}]
    for changes in settings:
        if changes.keys() <= option.takes:
            text = "".join(f" sampler.{key}={value}" for key, value in changes.items())
            yield f"{option}{text}", option.small(**changes)


def _runs(sampler: Sampler, schedule: NoiseSchedule) -> bool:
    try:
        sampler.chain(schedule)
    except ValueError:
        return False
    return True


def _chain(sampler: Sampler, schedule: NoiseSchedule, label: int | None = None) -> Exact:
    return exact(label, tuple(schedule.betas.tolist()), visited(sampler, schedule))


def _small(chain: Exact) -> Tensor:
    return chain.small.log()[:, None].expand(-1, chain.noising.size)


@cache
def obeys_variance(sampler: Sampler) -> bool:
    """Whether the predicted log-variance makes a difference."""
    schedule = NoiseSchedule(BETAS)
    chain = _chain(sampler, schedule)
    one, other = (
        moved(sampler, ReferenceDenoiser(chain, log_variance=_small(chain) + more), schedule)
        for more in (0.0, 1.0)
    )
    return map_distance(one, other) > EXACT


def expected_noise(sampler: Sampler) -> Callable[[Exact, Tensor], Tensor] | None:
    """(chain in use, predicted log-variance [K, D]) -> variance [K, D] of each step's noise; None where the
    sampler is free to choose.
    """
    if hasattr(sampler, "eta"):
        return lambda chain, predicted: (sampler.eta**2 * chain.small)[:, None].expand_as(predicted)
    if obeys_variance(sampler):
        return lambda chain, predicted: predicted.exp()
    return None


def draws_from_posterior(sampler: Sampler) -> bool:
    """Whether each step, with the small variance, is a draw from q(x before | x_t, the predicted x_0)."""
    return sampler.eta == 1 if hasattr(sampler, "eta") else obeys_variance(sampler)


def known_x_0_error(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """Where the denoiser knows x_0, every x_t has the moments of q(x_t | x_0)."""
    chain = _chain(sampler, schedule)
    x_0 = torch.tensor([0.4, -0.3, 0.7, 0.1], dtype=torch.float64)

    def known(i: Tensor, x_t: Tensor) -> Tensor:
        return x_0.expand_as(x_t)

    found = moved(sampler, ReferenceDenoiser(chain, known, _small(chain)), schedule)
    expected = {
        t: Gaussian(law.mean(x_0[None])[0], law.covariance)
        for t in chain.steps
        for law in [chain.noising.given(t, CLEAN)]
    }
    begin = expected[chain.steps[-1]]
    return max(law_distance(found[t].law(begin), expected[t]) for t in chain.steps)


def fresh_noise_error(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """Each noise that is asked for has the variance it should have; the last step has none."""
    chain = _chain(sampler, schedule)
    predicted = _small(chain) + VARIANCE_OUTPUT
    variance_of = expected_noise(sampler)
    assert variance_of is not None, "the sampler is free to choose"
    expected = variance_of(chain, predicted)
    found = moved(sampler, ReferenceDenoiser(chain, log_variance=predicted), schedule)
    errors = []
    for i in reversed(range(1, len(chain.steps))):
        above, here = found[chain.steps[i]].noise, found[chain.steps[i - 1]].noise
        # what came in at this step: columns that did not matter before
        new = here[:, (above == 0).all(0)] if above.shape[1] else here
        errors.append(distance(new @ new.T, expected[i].diag()))
    first, last = found[chain.steps[0]].noise, found[CLEAN].noise
    errors.append(distance((first != 0).any(0).double().sum(), (last != 0).any(0).double().sum()))
    return max(errors)


def moments_error(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """Of Gaussian data all along a reverse process, each of whose steps draws from q(x before | x_t, x_0) at
    the predicted x_0, which conditioning gives.
    """
    chain = _chain(sampler, schedule)
    found = moved(sampler, ReferenceDenoiser(chain, log_variance=_small(chain)), schedule)
    begin = law = standard(SIZE)
    identity = torch.eye(SIZE, dtype=torch.float64)
    rows = torch.cat([torch.zeros(1, SIZE, dtype=torch.float64), identity])
    errors = []
    for i in reversed(range(len(chain.steps))):
        errors.append(law_distance(found[chain.steps[i]].law(begin), law))
        step = torch.full((len(rows),), i)
        means = chain.mean_before(step, rows, chain.best_x_0(step, rows))
        matrix = (means[1:] - means[0]).T
        fresh = chain.small[i] * identity if i else torch.zeros_like(identity)
        law = Gaussian(means[0] + matrix @ law.mean, matrix @ law.covariance @ matrix.T + fresh)
    return max(*errors, law_distance(found[CLEAN].law(begin), law))


def unit_gaussian_error(sampler: Sampler, schedule: NoiseSchedule) -> float:
    """Data of unit variance stay what they are, all along, if the noise has the large variance."""
    data = standard(SIZE)
    chain = Exact(Noising(data, schedule.betas.tolist()), visited(sampler, schedule))
    large = chain.large.log()[:, None].expand(-1, SIZE)
    found = moved(sampler, ReferenceDenoiser(chain, log_variance=large), schedule)
    return max(law_distance(found[t].law(data), data) for t in chain.steps)


def slope(errors: Sequence[float]) -> float:
    """Order of accuracy that the two finest of `NUM_STEPS` show."""
    return math.log(errors[-2] / errors[-1]) / math.log((NUM_STEPS[-1] - 1) / (NUM_STEPS[-2] - 1))


@cache
def _long() -> Noising:
    """The long chain, for data of two dimensions."""
    two = slice(0, 2)
    return Noising(Gaussian(DATA[None].mean[two], DATA[None].covariance[two, two]), LONG.tolist())


def order_error(option: Option) -> float:
    """How far the order falls short, measured at t = 0: of the path, for a deterministic sampler, against the
    probability-flow ODE; otherwise of the moments, against the data's.
    """
    schedule = NoiseSchedule(LONG)
    errors = []
    for num_steps in NUM_STEPS:
        sampler = option.small(num_steps=num_steps, spacing="uniform")
        chain = Exact(_long(), visited(sampler, schedule))
        denoiser = ReferenceDenoiser(chain, log_variance=_small(chain))
        found = moved(sampler, denoiser, schedule, (2, 1, 1))[chain.steps[0]]
        begin, end = (chain.noising.marginal(chain.steps[i]) for i in (-1, 0))
        if found.noise.shape[1]:
            errors.append(law_distance(found.law(begin), end))
        else:
            x_t = begin.mean + torch.tensor([[1.0, -0.6], [-0.3, 1.4]], dtype=torch.float64)
            arrived = x_t @ found.start.T + found.offset
            errors.append(distance(arrived, probability_flow(begin, end, x_t)))
    return max(0.0, ORDERS.get(type(option.small(num_steps=NUM_STEPS[0])), 1) - slope(errors))


def inversion_errors(option: Option) -> tuple[float, float, float]:
    """Of the finest round trip x_0 -> x_t -> x_0; how far its order falls short of 2; and how far x_t is from
    where the ODE leads.
    """
    schedule = NoiseSchedule(LONG)
    betas = tuple(LONG.tolist())
    label = 1  # whose spread is nowhere as small as the first steps' noise
    images = as_images(DATA[label].mean + 0.3 * drawn(9, 5, SIZE))
    errors, rounds = [], []
    for num_steps in NUM_STEPS:
        decoder = option.small(num_steps=num_steps, eta=0.0)
        denoiser = ReferenceDenoiser(exact(label, betas, visited(decoder, schedule)))
        x_t = DDIMInversion(num_steps)(denoiser, schedule, images)
        errors.append(distance(decoder(denoiser, schedule, x_t, noise=_no_noise), images))
        rounds.append((denoiser, x_t))
    denoiser, x_t = rounds[-1]
    end = denoiser.chain.noising.marginal(len(betas) - 1)
    flow = probability_flow(DATA[label], end, images.flatten(1))
    return errors[-1], max(0.0, 2 - slope(errors)), distance(x_t.flatten(1), flow)


def _no_noise(t: int, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def _denoisers(
    parts: Combination, sampler: Sampler, schedule: NoiseSchedule, batch: int, clip: bool
) -> tuple[Denoiser, ReferenceDenoiser]:
    """The project's denoiser of a combination, and what it should say."""
    objective, variance, guidance = (parts[g].small() for g in ("objective", "variance", "guidance"))
    theirs = parts["guidance"].small()  # the same, of what the reference network says
    label = 1 if guidance.needs_unconditional else None
    labels = None if label is None else torch.full((batch,), label)
    chain = _chain(sampler, schedule)
    of_class = chain if label is None else _chain(sampler, schedule, label)
    if clip:
        network, x_0 = overshooting(objective, schedule, variance)
        if guidance.needs_guide:
            guidance.guide = network

        def predicted(i: Tensor, x_t: Tensor) -> Tensor:
            return x_0.clamp(-1, 1).expand_as(x_t)
    else:
        network = known = GaussianNetwork(objective, schedule, variance)
        of_guide = _chain(sampler, schedule, 0)
        if guidance.needs_guide:  # one that has learned other data
            guidance.guide = lambda x_t, t: known(x_t, t, torch.zeros(len(x_t), dtype=torch.int64))
            theirs.guide = of_guide

        def predicted(i: Tensor, x_t: Tensor) -> Tensor:
            def best(labels: Tensor | None, network: object = None) -> Tensor:
                asked = of_guide if network is of_guide else chain if labels is None else of_class
                return as_images(asked.best_x_0(i, x_t))

            condition = labels if labels is None else labels[: len(x_t)]
            t = torch.tensor(chain.steps)[i]
            return theirs(best, as_images(x_t), t, condition, schedule.num_timesteps).flatten(1)

    ours = Denoiser(
        network, Parametrization(objective, variance), clip=clip, labels=labels, guidance=guidance
    )
    spread = log_variance(variance, chain, schedule.respaced(chain.steps))
    return ours, ReferenceDenoiser(chain, predicted, spread)


def combined_error(parts: Combination, settings: Mapping[str, Any]) -> float:
    """The sampler with the project's denoiser goes where it goes with the reference denoiser."""
    schedule, sampler = parts["schedule"].small(), parts["sampler"].small(**settings)
    batch = 1 + SIZE + 2 * SIZE * len(visited(sampler, schedule))
    ours, reference = _denoisers(parts, sampler, schedule, batch, clip=False)
    return map_distance(moved(sampler, ours, schedule), moved(sampler, reference, schedule))


def clipped_error(parts: Combination, settings: Mapping[str, Any]) -> float:
    """An x_0 beyond [-1, 1] is brought back before any step is made of it."""
    schedule, sampler = parts["schedule"].small(), parts["sampler"].small(**settings)
    x_t = as_images(drawn(10, 3, SIZE))
    paths = []
    for denoiser in _denoisers(parts, sampler, schedule, len(x_t), clip=True):
        path = Trajectory()
        result = sampler(denoiser, schedule, x_t, noise=lambda t, like: drawn(t, *like.shape), on_step=path)
        paths.append(torch.stack([*path.x_t.values(), result]))
    return distance(*paths)


def encoded_error(parts: Combination) -> float:
    """An image is encoded as with the reference denoiser."""
    schedule, sampler = parts["schedule"].small(), parts["sampler"].small()
    images = as_images(DATA[None].mean + 0.3 * drawn(9, 5, SIZE))
    ours, reference = (
        DDIMInversion(None)(denoiser, schedule, images)
        for denoiser in _denoisers(parts, sampler, schedule, len(images), clip=False)
    )
    return distance(ours, reference)
