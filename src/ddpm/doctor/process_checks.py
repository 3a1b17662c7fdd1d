"""The forward process: every table of a schedule against single noising steps."""

import math
from collections.abc import Callable, Iterator
from functools import partial

import torch

from ddpm.diffusion import NoiseSchedule, predict_eps, predict_x_0, q_posterior_mean, q_sample
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import NUM_TIMESTEPS, Catalogue, Option
from ddpm.doctor.gaussian import CLEAN, Noising, standard

SHORT = (0, 1, 3, 7, 8, 16, 22, NUM_TIMESTEPS - 1)
"""Steps of a chain of `NUM_TIMESTEPS`, unevenly spaced, with which shortened chains are examined."""

EXACT = 1e-8
"""Allowed between numbers that differ by rounding alone."""


def short_steps(schedule: NoiseSchedule) -> list[int]:
    """`SHORT` at the length of this schedule."""
    scale = (schedule.num_timesteps - 1) / SHORT[-1]
    return sorted({round(t * scale) for t in SHORT})


def cases(catalogue: Catalogue) -> Iterator[Case]:
    for option in catalogue["schedule"]:
        variants = {"": option.small}
        if "zero_terminal_snr" in option.takes:
            variants[" zero_terminal_snr=true"] = partial(option.small, zero_terminal_snr=True)
        for text, build in variants.items():
            for check, (compared, measure) in CHECKS.items():
                measured = partial(_of_built, measure, build)
                yield Case(check, str(option), compared, f"{option}{text}", measured, EXACT)
        if "shift" in option.takes:
            compared, measured = "the SNR over the square of the shift", partial(shift_error, option)
            yield Case("shift", str(option), compared, str(option), measured, EXACT)
        for check in ("noising", "posterior"):
            measured = partial(_of_built, CHECKS[check][1], option.build)
            yield Case(check, str(option), "", f"{option} at its own length", measured, EXACT)


def _of_built(measure: Callable[[NoiseSchedule], float], build: Callable[[], NoiseSchedule]) -> float:
    return measure(build())


def some_steps(schedule: NoiseSchedule) -> range:
    """All of a short schedule's steps, about 25 of a long one's."""
    return range(0, schedule.num_timesteps, max(1, schedule.num_timesteps // 25))


def noising_error(schedule: NoiseSchedule) -> float:
    """Of q_sample, its two inverses and the signal-to-noise ratio."""
    steps = some_steps(schedule)
    noising = Noising(standard(1), schedule.betas.tolist())
    t = torch.tensor(steps)
    signal, noise = (
        torch.tensor([part(step) for step in steps], dtype=torch.float64)[:, None]
        for part in (noising.signal, noising.noise)
    )
    one = torch.ones_like(signal)
    x_t = 0.7 * signal - 1.3 * noise
    found = [
        distance(q_sample(schedule, one, t, 0 * one), signal),
        distance(q_sample(schedule, 0 * one, t, one), noise),
        distance(predict_eps(schedule, x_t, t, 0.7 * one), -1.3 * one),
        distance(schedule.lookup("snr", t, one), (signal / noise) ** 2),
    ]
    left = signal[:, 0] > 0
    x_0 = predict_x_0(schedule, x_t, t, -1.3 * one)
    # relative to how far x_0 can be seen in x_t at all
    return max(*found, distance((x_0 * signal)[left], (0.7 * signal)[left]))


def shift_error(option: Option) -> float:
    """Of the SNR of chains that are shifted, both ways; log SNR - 2 log(shift) (Hoogeboom et al. 2023)."""
    plain = option.small().snr.log()
    errors = []
    for shift in (0.5, 3.0):
        shifted = option.small(shift=shift).snr.log() + 2 * math.log(shift)
        errors.append(distance(shifted[plain.isfinite()], plain[plain.isfinite()]))
    return max(errors)


def posterior_error(schedule: NoiseSchedule) -> float:
    """Of q_posterior_mean and the variances."""
    noising = Noising(standard(1), schedule.betas.tolist())
    errors = []
    for step in some_steps(schedule):
        t, one = torch.tensor([step]), torch.ones(1, 1, dtype=torch.float64)
        from_x_0 = q_posterior_mean(schedule, one, 0 * one, t)
        from_x_t = q_posterior_mean(schedule, 0 * one, one, t)
        if step == 0:
            law = noising.given(0, CLEAN) if schedule.num_timesteps == 1 else noising.given(0, CLEAN, 1)
            found = torch.cat([from_x_0, from_x_t, schedule.posterior_variance[:1, None]])
            expected = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
        else:
            law = noising.given(step - 1, CLEAN, step)
            found = torch.cat([from_x_0, from_x_t, schedule.posterior_variance[t, None]])
            expected = torch.cat([*law.gains, law.covariance])
        positive = schedule.lookup("posterior_variance_positive", t, one)
        errors += [distance(found, expected), distance(positive, law.covariance)]
    return max(errors)


def respaced_error(schedule: NoiseSchedule) -> float:
    """Of the chain that visits only some steps: its betas, marginals and posterior."""
    noising = Noising(standard(1), schedule.betas.tolist())
    steps = short_steps(schedule)
    chain = schedule.respaced(steps)
    if chain.timesteps.tolist() != steps:
        return float("inf")
    errors = []
    for i, (before, step) in enumerate(zip([CLEAN, *steps[:-1]], steps, strict=True)):
        t, one = torch.tensor([i]), torch.ones(1, 1, dtype=torch.float64)
        step_law = noising.given(step, before)
        found = [chain.lookup("betas", t, one), q_sample(chain, one, t, 0 * one)]
        expected = [step_law.covariance, noising.given(step, CLEAN).gains[0]]
        if i:
            law = noising.given(before, CLEAN, step)
            found += [q_posterior_mean(chain, one, 0 * one, t), q_posterior_mean(chain, 0 * one, one, t)]
            expected += law.gains
            found.append(chain.lookup("posterior_variance", t, one))
            expected.append(law.covariance)
        errors.append(distance(torch.cat(found), torch.cat(expected)))
    return max(errors)


CHECKS: dict[str, tuple[str, Callable[[NoiseSchedule], float]]] = {
    "noising": ("q(x_t | x_0) with single noising steps", noising_error),
    "posterior": ("q(x_t-1 | x_t, x_0) with conditioning", posterior_error),
    "respacing": ("the shortened chain with conditioning", respaced_error),
}
"""Name -> (what with what, the error of a schedule)."""
