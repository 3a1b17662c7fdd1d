"""Which steps are visited, under every name, compared with what the name means."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any

import torch

from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.samplers import Spacing
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import Catalogue
from ddpm.doctor.process_checks import EXACT
from ddpm.doctor.reference import exact

NUM_STEPS = 9
"""No stride on a chain of `NUM_TIMESTEPS` is whole, and every second of evenly spaced steps is a half."""

RHO = 5.0

SECTIONS = (5, 3, 6)


def _evenly(count: int, last: int) -> list[int]:
    return [round(Fraction(k * last, count - 1)) for k in range(count)]


def _in_sections(levels: Sequence[float]) -> list[int]:
    edges = [math.ceil(Fraction(len(levels) * k, len(SECTIONS))) for k in range(len(SECTIONS) + 1)]
    return [
        begin + step
        for count, (begin, end) in zip(SECTIONS, pairwise(edges), strict=True)
        for step in _evenly(count, end - begin - 1)
    ]


def _near(levels: Sequence[float]) -> list[int]:
    """Steps whose levels are spaced evenly, each as near as one that is free comes."""
    finite = [level for level in levels if level < math.inf]
    count = NUM_STEPS - (len(levels) - len(finite))
    wanted = [finite[0] + (finite[-1] - finite[0]) * k / (count - 1) for k in range(count)]
    away = [[abs(level - at) for level in finite] for at in wanted]
    nearest = [row.index(min(row)) for row in away]
    return _apart([*nearest, *range(len(finite), len(levels))], len(levels) - 1)


def _apart(steps: Sequence[int], last: int) -> list[int]:
    found: list[int] = []
    for k, step in enumerate(steps):
        lowest = found[-1] + 1 if found else 0
        found.append(min(max(step, lowest), last - (len(steps) - 1 - k)))
    return found


def _quadratic(sigmas: Sequence[float]) -> list[int]:
    last = len(sigmas) - 1
    return _apart([round(Fraction(last * k**2, (NUM_STEPS - 1) ** 2)) for k in range(NUM_STEPS)], last)


def _strided(sigmas: Sequence[float]) -> list[int]:
    """5 steps by the smallest whole stride, which is no other's for that number."""
    every = range(len(sigmas))
    return next(list(every[::stride]) for stride in every[1:] if len(every[::stride]) == 5)


SPACINGS: Mapping[str, tuple[Any, Callable[[Sequence[float]], list[int]]]] = {
    "uniform": ("uniform", lambda sigmas: _evenly(NUM_STEPS, len(sigmas) - 1)),
    "leading": ("leading", lambda sigmas: list(range(len(sigmas)))[:: len(sigmas) // NUM_STEPS][:NUM_STEPS]),
    "trailing": (
        "trailing",
        lambda sigmas: [round(Fraction(len(sigmas) * k, NUM_STEPS)) - 1 for k in range(1, NUM_STEPS + 1)],
    ),
    "quadratic": ("quadratic", _quadratic),
    "log_snr": ("log_snr", lambda sigmas: _near([math.log(sigma) for sigma in sigmas])),
    "karras": ("karras", lambda sigmas: _near([sigma ** (1 / RHO) for sigma in sigmas])),
    "ddim5": ("ddim5", _strided),
    "sections": (list(SECTIONS), _in_sections),
}
"""What is typed, and (sigmas of the chain's steps, noise relative to signal) -> the steps that it means."""


def cases(catalogue: Catalogue) -> Iterator[Case]:
    for name, (typed, meaning) in SPACINGS.items():
        for option in catalogue["schedule"]:
            compared = "the steps visited with what the name means"
            measured = partial(spacing_error, typed, meaning, option.small())
            yield Case("spacing", f"sampler.spacing={name}", compared, str(option), measured, EXACT)


def spacing_error(
    typed: Any, meaning: Callable[[Sequence[float]], list[int]], schedule: NoiseSchedule
) -> float:
    """How far the furthest step is from where it should be."""
    chain = exact(None, tuple(schedule.betas.tolist()))
    sigmas = (chain.noise / chain.signal).tolist()
    found = Spacing(NUM_STEPS, typed, rho=RHO).steps(schedule)
    expected = torch.tensor(meaning(sigmas))
    return distance(found.double(), expected.double()) if len(found) == len(expected) else math.inf
