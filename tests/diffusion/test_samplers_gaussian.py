"""Samplers on Gaussian data, whose best denoiser is affine in x_t: exact maps, orders, and a round trip.

The denoiser is the doctor's oracle, which knows single noising steps and conditioning only. What a sampler
makes of it is compared with the papers' formulas, propagated here by themselves.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Prediction, q_sample
from ddpm.diffusion.process import betas_between
from ddpm.diffusion.samplers import DDIM, DEIS, Ancestral, DDIMInversion, DPMSolver, Heun, Sampler, Trajectory
from ddpm.diffusion.schedules import cosine, linear
from ddpm.doctor.affine import Moved, moved, visited
from ddpm.doctor.gaussian import CLEAN, Exact, Gaussian, Noising, probability_flow, standard
from ddpm.doctor.reference import ReferenceDenoiser, as_images

D = 3
SHAPE = (D, 1, 1)
ROOT = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.3, 0.0], [-0.1, 0.25, 0.1]], dtype=torch.float64)
DATA = Gaussian(torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64), ROOT @ ROOT.T)
IDENTITY = torch.eye(D, dtype=torch.float64)


def denoiser_for(
    sampler: Sampler | DDIMInversion,
    schedule: NoiseSchedule,
    start: int | None = None,
    large: bool = False,
) -> ReferenceDenoiser:
    """The best there is on the steps that the sampler visits, with the small or the large variance."""
    steps = sampler.spacing.chain(schedule, start).timesteps.tolist()
    chain = Exact(Noising(DATA, schedule.betas.tolist()), steps)
    variance = torch.cat([chain.small[:1], chain.large[1:]]) if large else chain.small
    return ReferenceDenoiser(chain, log_variance=variance.log()[:, None].expand(-1, D))


def no_noise(t: int, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


class Affine:
    """The propagation that the samplers are compared with: x_t = W (1, x_T, noises), W moved by formulas. The
    noises stand in the order in which a sampler goes down.
    """

    def __init__(self, schedule: NoiseSchedule, steps: list[int]):
        self.steps = steps
        self.alpha_bars = [float(schedule.alphas_cumprod[t]) for t in steps]
        self.oracle = Exact(Noising(DATA, schedule.betas.tolist()), steps)
        width = 1 + D + D * len(steps)
        self.one = torch.zeros(width, dtype=torch.float64)
        self.one[0] = 1
        self.start = torch.zeros(D, width, dtype=torch.float64)
        self.start[:, 1 : 1 + D] = IDENTITY

    def x_0(self, x: Tensor, i: int) -> Tensor:
        offset, *columns = self.oracle.best_x_0(
            torch.full((1 + x.shape[1],), i), torch.cat([torch.zeros(1, D, dtype=torch.float64), x.T])
        )
        return (torch.stack(columns) - offset).T + torch.outer(offset, self.one)

    def noise(self, i: int) -> Tensor:
        columns = torch.zeros_like(self.start)
        first = 1 + D + D * (len(self.steps) - 1 - i)
        columns[:, first : first + D] = IDENTITY
        return columns

    def shape_of(self, found: Moved) -> Tensor:
        """The same map as W, where noise that was not asked for makes no difference."""
        missing = self.start.shape[1] - 1 - D - found.noise.shape[1]
        rest = torch.zeros(D, missing, dtype=torch.float64)
        return torch.cat([found.offset[:, None], found.start, found.noise, rest], dim=1)

    def ancestral(self, large: bool, to_x_0: bool) -> Tensor:
        """Ho et al. 2020, eq. 7, with the betas of the shortened chain; no noise in the last step."""
        x = self.start
        for i in reversed(range(0 if to_x_0 else 1, len(self.steps))):
            a, before = self.alpha_bars[i], self.alpha_bars[i - 1] if i else 1.0
            alpha = a / before
            beta = 1 - alpha
            x = (
                math.sqrt(before) * beta * self.x_0(x, i) + math.sqrt(alpha) * (1 - before) * x
            ) / (1 - a)  # fmt: skip
            if i:
                x = x + math.sqrt(beta if large else beta * (1 - before) / (1 - a)) * self.noise(i)
        return x

    def ddim(self, eta: float, to_x_0: bool) -> Tensor:
        """Song et al. 2021, eq. 12 with the sigma of eq. 16."""
        x = self.start
        for i in reversed(range(0 if to_x_0 else 1, len(self.steps))):
            a, before = self.alpha_bars[i], self.alpha_bars[i - 1] if i else 1.0
            sigma = eta * math.sqrt((1 - before) / (1 - a)) * math.sqrt(1 - a / before)
            x_0 = self.x_0(x, i)
            eps = (x - math.sqrt(a) * x_0) / math.sqrt(1 - a)
            x = math.sqrt(before) * x_0 + math.sqrt(1 - before - sigma**2) * eps + sigma * self.noise(i)
        return x

    def dpm_solver(self, stochastic: bool, to_x_0: bool) -> Tensor:
        """Lu et al. 2022: the integral over lambda of x_0's line through its last two values.

        x_t = sigma_t / sigma_s x_s + sigma_t * (integral of e^lambda x_0(lambda)), the line's slope being
        (x_0 - x_0 before) / (lambda - lambda before), taken at half the step (the paper's approximation of
        the second integral).
        """
        x, lambda_before, x_0_before = self.start, None, None
        for i in reversed(range(1, len(self.steps))):
            a, b = self.alpha_bars[i], self.alpha_bars[i - 1]
            lambda_s, lambda_t = (math.log(math.sqrt(c) / math.sqrt(1 - c)) for c in (a, b))
            x_0 = self.x_0(x, i)
            value = x_0
            if lambda_before is not None:
                slope = (x_0 - x_0_before) / (lambda_s - lambda_before)
                value = x_0 + slope * (lambda_t - lambda_s) / 2
            sigma_s, sigma_t = math.sqrt(1 - a), math.sqrt(1 - b)
            if stochastic:
                rise = math.exp(2 * (lambda_s - lambda_t))
                x = (
                    sigma_t**2 * math.sqrt(a) / (sigma_s**2 * math.sqrt(b)) * x
                    + math.sqrt(b) * (1 - rise) * value
                    + sigma_t * math.sqrt(1 - rise) * self.noise(i)
                )
            else:
                integral = math.exp(lambda_t) - math.exp(lambda_s)
                x = sigma_t / sigma_s * x + sigma_t * integral * value
            lambda_before, x_0_before = lambda_s, x_0
        return self.x_0(x, 0) if to_x_0 else x

    def deis(self, order: int, to_x_0: bool) -> Tensor:
        """Zhang and Chen 2023: the integral over sigma of eps's polynomial in log sigma through its last
        values, found from the integrals of 1, log sigma and its square.
        """
        sigmas = [math.sqrt((1 - a) / a) for a in self.alpha_bars]
        x = self.start / math.sqrt(self.alpha_bars[-1])
        nodes: list[float] = []
        known: list[Tensor] = []
        for i in reversed(range(1, len(self.steps))):
            x_0 = self.x_0(math.sqrt(self.alpha_bars[i]) * x, i)
            nodes = [math.log(sigmas[i]), *nodes][:order]
            known = [(x - x_0) / sigmas[i], *known][:order]

            def integral(k: int, sigma: float) -> float:
                u = math.log(sigma)
                return sigma * (1.0, u - 1, u**2 - 2 * u + 2)[k]

            powers = torch.tensor(
                [[node**k for node in nodes] for k in range(len(nodes))], dtype=torch.float64
            )
            wanted = [integral(k, sigmas[i - 1]) - integral(k, sigmas[i]) for k in range(len(nodes))]
            weights = torch.linalg.solve(powers, torch.tensor(wanted, dtype=torch.float64))
            x = x + sum(weight * eps for weight, eps in zip(weights, known, strict=True))
        x_t = math.sqrt(self.alpha_bars[0]) * x
        return self.x_0(x_t, 0) if to_x_0 else x_t

    def heun(self, to_x_0: bool) -> Tensor:
        """Karras et al. 2022, algorithm 1, in x = x_t / sqrt(alpha-bar), without churn."""
        sigmas = [math.sqrt((1 - a) / a) for a in self.alpha_bars]
        x = self.start / math.sqrt(self.alpha_bars[-1])

        def derivative(x: Tensor, i: int) -> Tensor:
            return (x - self.x_0(math.sqrt(self.alpha_bars[i]) * x, i)) / sigmas[i]

        for i in reversed(range(1, len(self.steps))):
            d = derivative(x, i)
            euler = x + (sigmas[i - 1] - sigmas[i]) * d
            x = x + (sigmas[i - 1] - sigmas[i]) * (d / 2 + derivative(euler, i - 1) / 2)
        if to_x_0:
            return x - sigmas[0] * derivative(x, 0)
        return math.sqrt(self.alpha_bars[0]) * x


T = 60
UNEVEN = [0, 2, 5, 6, 15, 30, 44, 59]
CASES: dict[str, tuple[Callable[..., Sampler], Callable[[Affine, bool], Tensor]]] = {
    "ancestral, small": (Ancestral, lambda exact, to_x_0: exact.ancestral(False, to_x_0)),
    "ancestral, large": (Ancestral, lambda exact, to_x_0: exact.ancestral(True, to_x_0)),
    "ddim": (DDIM, lambda exact, to_x_0: exact.ddim(0.0, to_x_0)),
    "ddim, eta 0.6": (lambda **k: DDIM(eta=0.6, **k), lambda exact, to_x_0: exact.ddim(0.6, to_x_0)),
    "ddim, eta 1": (lambda **k: DDIM(eta=1.0, **k), lambda exact, to_x_0: exact.ddim(1.0, to_x_0)),
    "dpm_solver": (DPMSolver, lambda exact, to_x_0: exact.dpm_solver(False, to_x_0)),
    "dpm_solver, sde": (
        lambda **k: DPMSolver(stochastic=True, **k),
        lambda exact, to_x_0: exact.dpm_solver(True, to_x_0),
    ),
    "deis": (DEIS, lambda exact, to_x_0: exact.deis(3, to_x_0)),
    "deis, order 2": (lambda **k: DEIS(order=2, **k), lambda exact, to_x_0: exact.deis(2, to_x_0)),
    "heun": (Heun, lambda exact, to_x_0: exact.heun(to_x_0)),
}
"""A sampler, and its formulas up to x_0 or to x_t of the last step visited, where solvers can be compared."""


def assert_as_the_formulas(
    case: str, settings: dict, schedule: NoiseSchedule, steps: list[int], start: int | None = None
) -> None:
    make, propagate = CASES[case]
    sampler, exact = make(**settings), Affine(schedule, steps)
    denoiser = denoiser_for(sampler, schedule, start, large="large" in case)
    found = moved(sampler, denoiser, schedule, SHAPE, start)
    for t, to_x_0 in ((CLEAN, True), (steps[0], False)):
        torch.testing.assert_close(exact.shape_of(found[t]), propagate(exact, to_x_0), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("make_schedule", [linear, cosine])
@pytest.mark.parametrize("steps", [list(range(T)), UNEVEN], ids=["every step", "uneven steps"])
@pytest.mark.parametrize("case", CASES)
def test_every_map_is_that_of_the_papers_formulas(
    case: str, steps: list[int], make_schedule: Callable[[int], NoiseSchedule]
):
    settings = {"num_steps": None} if len(steps) == T else {"timesteps": steps}
    assert_as_the_formulas(case, settings, make_schedule(T), steps)


@pytest.mark.parametrize("case", CASES)
def test_a_start_below_the_top_begins_there(case: str):
    assert_as_the_formulas(case, {"timesteps": UNEVEN}, linear(T), [0, 2, 5, 6, 15, 25], start=25)


@pytest.mark.parametrize(
    ("sampler", "within"),
    [
        (Ancestral(), 0.04),  # its small variance is that of data in a single point: the spread is too small
        (DDIM(None), 0.02),
        (DPMSolver(100), 0.005),
        (DPMSolver(100, stochastic=True), 0.02),
        (DEIS(50), 0.005),
        (Heun(50), 0.005),
    ],
)
def test_the_data_come_out(sampler: Sampler, within: float):
    """Apart from all formulas: the data's own moments, as nearly as a chain of 100 steps allows."""
    schedule = linear(100)
    found = moved(sampler, denoiser_for(sampler, schedule), schedule, SHAPE)[CLEAN].law(standard(D))
    torch.testing.assert_close(found.mean, DATA.mean, atol=within, rtol=0)
    torch.testing.assert_close(found.covariance, DATA.covariance, atol=within, rtol=0)


def error_at_the_end(sampler: Sampler) -> float:
    """Distance at t = 0 from the solution of the probability-flow ODE for data N(0.1, 0.5^2)."""
    schedule = linear(1000)
    data = Gaussian(torch.tensor([0.1], dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64))
    chain = Exact(Noising(data, schedule.betas.tolist()), visited(sampler, schedule))
    x_t, path = torch.tensor([[-1.0], [1.5]], dtype=torch.float64), Trajectory()
    begin, end = (chain.noising.marginal(chain.steps[i]) for i in (-1, 0))
    sampler(ReferenceDenoiser(chain), schedule, as_images(x_t, (1, 1, 1)), noise=no_noise, on_step=path)
    return float((path.x_t[0].flatten(1) - probability_flow(begin, end, x_t)).abs().max())


@pytest.mark.parametrize(("make", "order"), [(DDIM, 1), (DPMSolver, 2), (Heun, 2)])
def test_order_of_accuracy(make: Callable[..., Sampler], order: int):
    """From t = 999 to t = 0 in 27, 37, 111 and 333 equal steps of 37, 27, 9 and 3."""
    counts = (27, 37, 111, 333)
    errors = [error_at_the_end(make(count + 1)) for count in counts]
    slopes = [
        math.log(errors[i] / errors[i + 1]) / math.log(counts[i + 1] / counts[i])
        for i in range(len(counts) - 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert abs(slopes[-1] - order) < 0.15, slopes


@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis_is_of_its_order_once_it_knows_so_many_values(order: int):
    """Its first two steps know fewer, and are made short here."""
    sigmas = torch.logspace(-1.3, 0.3, 3001, dtype=torch.float64)
    schedule = NoiseSchedule(betas_between(1 / (1 + torch.cat([torch.zeros(1), sigmas]) ** 2)))

    def denoiser(chain: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        """Of data N(0, 0.3^2)."""
        alpha_bar = float(chain.alphas_cumprod[t[0]])
        x_0 = 0.09 * math.sqrt(alpha_bar) / (1 - 0.91 * alpha_bar) * x_t
        return Prediction(x_0, (x_t - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar), x_t)

    errors = []
    for stride in (50, 24):
        path, x_t = Trajectory(), torch.ones(1, 1, 1, 1, dtype=torch.float64)
        sampler = DEIS(order=order, timesteps=[*range(0, 3000, stride), 2998, 2999, 3000])
        sampler(denoiser, schedule, x_t, noise=no_noise, on_step=path)
        deviations = [float(1 - 0.91 * schedule.alphas_cumprod[t]) ** 0.5 for t in (0, -1)]
        errors.append(abs(float(path.x_t[0]) - deviations[0] / deviations[1]))
    assert math.log(errors[0] / errors[1]) / math.log(50 / 24) == pytest.approx(order, abs=0.1)


def images(n: int) -> Tensor:
    eps = torch.randn(D, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return as_images(DATA.mean + (ROOT @ eps).T, SHAPE)


@pytest.mark.parametrize("start", [None, 400])
def test_ddim_decodes_what_its_inversion_encoded(start: int | None):
    """0.0006 and 0.0002 at 200 steps."""
    schedule = linear(1000)
    x_0 = images(64)

    def error(steps: int) -> float:
        denoiser = denoiser_for(DDIM(steps), schedule, start)
        x_t = DDIMInversion(steps)(denoiser, schedule, x_0, start=start)
        decoded = DDIM(steps)(denoiser, schedule, x_t, noise=no_noise, start=start)
        return float((decoded - x_0).abs().mean())

    assert error(200) < 0.001
    assert error(200) < error(50) / 10, "of second order"


def test_inversion_ends_at_noise_of_the_right_spread():
    """Encoded data have the moments of q(x_t), as nearly as a method of first order keeps them: the inverse
    is right by itself, not only for its decoder.
    """
    schedule = linear(1000)
    inversion = DDIMInversion(None)
    for start in (999, 300):
        x_0 = as_images(torch.cat([torch.zeros(1, D, dtype=torch.float64), IDENTITY]), SHAPE)
        denoiser = denoiser_for(inversion, schedule, start)
        x_t = inversion(denoiser, schedule, x_0, start=start).flatten(1)
        matrix = (x_t[1:] - x_t[0]).T
        law = denoiser.chain.noising.marginal(start)
        torch.testing.assert_close(x_t[0] + matrix @ DATA.mean, law.mean, atol=0.01, rtol=0)
        torch.testing.assert_close(matrix @ DATA.covariance @ matrix.T, law.covariance, atol=0.04, rtol=0)


def test_samplers_that_solve_the_same_equation_meet():
    """From a noised image at t = 600, all deterministic ones go to the same x_0."""
    schedule = linear(1000)
    x_0 = images(8)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    x_t = q_sample(schedule, x_0, torch.full((8,), 600), eps)
    reference, *found = (
        sampler(denoiser_for(sampler, schedule, 600), schedule, x_t, noise=no_noise, start=600)
        for sampler in (Heun(200), DDIM(None), DPMSolver(100), Heun(60))
    )
    for other in found:
        torch.testing.assert_close(other, reference, atol=0.01, rtol=0)
