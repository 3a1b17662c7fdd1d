"""Conditions beside the class, on Gaussian data that are seen small: their posterior is Gaussian too.

An image is seen through a mean over its width and a little noise, as in super-resolution: y = A x_0 + n. One
number of y reaches the network as an image beside x_t, the other as a vector, so that neither may get lost.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import ClassifierFree
from ddpm.diffusion.objectives import Epsilon, Objective
from ddpm.diffusion.samplers import Heun
from ddpm.diffusion.variances import FixedSmall
from ddpm.doctor.affine import law_distance, moved, visited
from ddpm.doctor.case import Case, distance
from ddpm.doctor.combinations import BETAS, Catalogue, Option
from ddpm.doctor.denoiser_checks import noised
from ddpm.doctor.gaussian import CLEAN, Exact, Gaussian, Noising
from ddpm.doctor.process_checks import EXACT
from ddpm.doctor.reference import DATA, SHAPE, SIZE, Inputs, as_images, exact, output_for

SMALL = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]], dtype=torch.float64)
"""A: the mean of each of the two channels of an image of two pixels, [2, D]."""

SPREAD = 0.25
"""Deviation of the noise on y."""

SEEN = torch.tensor([0.6, -0.5], dtype=torch.float64)
"""The y that is given."""

LONG = torch.linspace(1e-3, 0.12, 150, dtype=torch.float64)
"""Betas of a chain that is walked down to the posterior."""


def cases(catalogue: Catalogue) -> Iterator[Case]:
    for option in catalogue["objective"]:
        for check, compared, measure in (
            ("condition", "x_0 with the posterior's; withheld, with the prior's", error),
            ("guided condition", "x_0 with the condition, without, and beyond", guided_error),
        ):
            yield Case(check, str(option), compared, str(option), partial(measure, option), EXACT)
    yield Case(
        "condition", "moments", "of what is drawn with the posterior's", "sampler=heun", moments_error, 2e-3
    )


def posterior() -> Gaussian:
    """Of x_0 given y = `SEEN`."""
    mean, covariance = DATA[None]
    gain = torch.linalg.solve(
        SMALL @ covariance @ SMALL.T + SPREAD**2 * torch.eye(2, dtype=torch.float64), SMALL @ covariance
    ).T
    return Gaussian(mean + gain @ (SEEN - SMALL @ mean), covariance - gain @ SMALL @ covariance)


class ConditionedNetwork:
    """The best network that sees x_t and y at once, each in its own way, and takes zeros for no y.

    Args:
        objective: says what is asked for.
        schedule: the original chain.
    """

    def __init__(self, objective: Objective, schedule: NoiseSchedule):
        self.objective = objective
        self.schedule = schedule
        self.chain = exact(None, tuple(schedule.betas.tolist()))
        self._inputs = Inputs(objective, schedule)

    def __call__(self, seen: Tensor, given: Tensor, *, vector: Tensor) -> Tensor:
        x_t, t = self._inputs(seen[:, : SHAPE[0]], given)
        y = torch.cat([seen[:, SHAPE[0] :].flatten(1)[:, :1], vector], dim=1)
        x_0 = torch.empty_like(x_t)
        for step in t.unique().tolist():
            rows = t == step
            x_0[rows] = self._best(x_t[rows], step, y[rows])
        return as_images(output_for(self.objective, self.schedule, self.chain, t, x_t, x_0))

    def _best(self, x_t: Tensor, t: int, y: Tensor) -> Tensor:
        """E[x_0 | x_t, y], or E[x_0 | x_t] where y is zeros throughout: [N, D]."""
        mean, covariance = DATA[None]
        view, noise = self.chain.signal[t] * torch.eye(SIZE).double(), self.chain.noise[t].expand(SIZE)
        value = x_t
        if bool((y != 0).any()):
            view, value = torch.cat([view, SMALL]), torch.cat([value, y], dim=1)
            noise = torch.cat([noise, torch.full((2,), SPREAD).double()])
        joint = view @ covariance @ view.T + (noise**2).diag()
        gain = torch.linalg.solve(joint, view @ covariance).T
        return mean + (value - view @ mean) @ gain.T


def _denoiser(objective: Objective, schedule: NoiseSchedule, n: int, **settings: Any) -> Denoiser:
    image = SEEN[0].expand(n, 1, *SHAPE[1:])
    return Denoiser(
        ConditionedNetwork(objective, schedule),
        Parametrization(objective, FixedSmall()),
        clip=False,
        condition=Condition(image, SEEN[1:].expand(n, 1)),
        **settings,
    )


def _predicted(option: Option, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 as a denoiser says it at each step, given y, and not: [T, D] each."""
    schedule = NoiseSchedule(BETAS)
    without = exact(None, tuple(BETAS.tolist()))
    i, _, _, x_t = noised(without)
    found = _denoiser(option.small(), schedule, len(i), **settings)(schedule, as_images(x_t), i)
    given = Exact(Noising(posterior(), BETAS.tolist()))
    return found.x_0.flatten(1), given.best_x_0(i, x_t), without.best_x_0(i, x_t)


def error(option: Option) -> float:
    """Of the prediction under a condition, and of that where it is withheld throughout."""
    found, given, _ = _predicted(option, {})
    nothing = ClassifierFree(0.0)  # of which only the output without the condition is left
    withheld, _, without = _predicted(option, {"guidance": nothing, "withholds_condition": True})
    return max(distance(found, given), distance(withheld, without))


def guided_error(option: Option) -> float:
    """Guided images lie on the line through those with the condition and without it."""
    found, given, without = _predicted(option, {"guidance": ClassifierFree(2.5), "withholds_condition": True})
    return distance(found, without + 2.5 * (given - without))


def moments_error() -> float:
    """Of what a fine second-order sampler draws under the condition, with those of the posterior."""
    schedule, sampler = NoiseSchedule(LONG), Heun(len(LONG))
    batch = 1 + SIZE + 2 * SIZE * len(visited(sampler, schedule))
    found = moved(sampler, _denoiser(Epsilon(), schedule, batch), schedule)
    begin = Noising(posterior(), LONG.tolist()).marginal(len(LONG) - 1)
    return law_distance(found[CLEAN].law(begin), posterior())
