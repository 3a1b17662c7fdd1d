"""Samplers on Gaussian data, whose best denoiser is affine in x_t: exact moments, orders, and a round trip.

With x_0 ~ N(m, C), a sampler's result is affine in x_T and in every noise it injects. Feeding it zero, the
unit vectors as x_T, and unit vectors as the noise of single steps gives the whole map without drawing
anything; it is compared with the papers' formulas propagated here by themselves.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.samplers import DDIM, Ancestral, DDIMInversion, DPMSolver, Heun, Path, Sampler
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Variance

D = 3
MEAN = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
ROOT = torch.tensor([[0.5, 0.0, 0.0], [0.2, 0.3, 0.0], [-0.1, 0.25, 0.1]], dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T
IDENTITY = torch.eye(D, dtype=torch.float64)


def best_x_0(alpha_bar: float, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """K [D, D] and k [D] with E[x_0 | x_t] = K x_t + k, by conditioning of jointly Gaussian x_0 and x_t."""
    marginal = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(mean), dtype=torch.float64)
    gain = math.sqrt(alpha_bar) * covariance @ torch.linalg.inv(marginal)
    return gain, mean - math.sqrt(alpha_bar) * gain @ mean


def exact_denoiser(
    schedule: NoiseSchedule,
    mean: Tensor = MEAN,
    covariance: Tensor = COVARIANCE,
    variance: Variance | None = None,
) -> Denoiser:
    alpha_bars = schedule.alphas_cumprod.tolist()

    def network(x: Tensor, t: Tensor) -> Tensor:
        (step,) = set(t.tolist())
        gain, offset = best_x_0(alpha_bars[step], mean, covariance)
        x_0 = (x[:, :, 0, 0] @ gain.T + offset)[:, :, None, None]
        return (x - math.sqrt(alpha_bars[step]) * x_0) / math.sqrt(1 - alpha_bars[step])

    return Denoiser(network, Parametrization(Epsilon(), variance or FixedSmall()), clip=False)


def as_images(columns: Tensor) -> Tensor:
    """[D, N] -> [N, D, 1, 1]."""
    return columns.T.contiguous()[:, :, None, None]


def no_noise(t: int, like: Tensor) -> Tensor:
    return torch.zeros_like(like)


def affine_map(
    sampler: Sampler, denoiser: Denoiser, schedule: NoiseSchedule, steps: list[int], start: int | None = None
) -> Tensor:
    """[D, 1 + D + D * len(steps)]: the offset, the response to x_T, and that to the noise of each step."""
    width = 1 + D + D * len(steps)
    x_t = torch.zeros(D, width, dtype=torch.float64)
    x_t[:, 1 : 1 + D] = IDENTITY

    def noise(t: int, like: Tensor) -> Tensor:
        columns = torch.zeros(D, width, dtype=torch.float64)
        first = 1 + D + D * steps.index(t)
        columns[:, first : first + D] = IDENTITY
        return as_images(columns)

    result = sampler(denoiser, schedule, as_images(x_t), noise=noise, start=start)
    result = result[:, :, 0, 0].T
    return torch.cat([result[:, :1], result[:, 1:] - result[:, :1]], dim=1)


class Affine:
    """The propagation that the samplers are compared with: x_t = W (1, x_T, noises), W moved by formulas."""

    def __init__(self, schedule: NoiseSchedule, steps: list[int]):
        self.steps = steps
        self.alpha_bars = [float(schedule.alphas_cumprod[t]) for t in steps]
        width = 1 + D + D * len(steps)
        self.one = torch.zeros(width, dtype=torch.float64)
        self.one[0] = 1
        self.start = torch.zeros(D, width, dtype=torch.float64)
        self.start[:, 1 : 1 + D] = IDENTITY

    def x_0(self, x: Tensor, alpha_bar: float) -> Tensor:
        gain, offset = best_x_0(alpha_bar, MEAN, COVARIANCE)
        return gain @ x + torch.outer(offset, self.one)

    def noise(self, i: int) -> Tensor:
        columns = torch.zeros_like(self.start)
        columns[:, 1 + D + D * i : 1 + 2 * D + D * i] = IDENTITY
        return columns

    def ancestral(self, large: bool) -> Tensor:
        """Ho et al. 2020, eq. 7, with the betas of the shortened chain; no noise in the last step."""
        x = self.start
        for i in reversed(range(len(self.steps))):
            a, before = self.alpha_bars[i], self.alpha_bars[i - 1] if i else 1.0
            alpha = a / before
            beta = 1 - alpha
            x = (
                math.sqrt(before) * beta * self.x_0(x, a) + math.sqrt(alpha) * (1 - before) * x
            ) / (1 - a)  # fmt: skip
            if i:
                x = x + math.sqrt(beta if large else beta * (1 - before) / (1 - a)) * self.noise(i)
        return x

    def ddim(self, eta: float, to_x_0: bool = True) -> Tensor:
        """Song et al. 2021, eq. 12 with the sigma of eq. 16."""
        x = self.start
        for i in reversed(range(0 if to_x_0 else 1, len(self.steps))):
            a, before = self.alpha_bars[i], self.alpha_bars[i - 1] if i else 1.0
            sigma = eta * math.sqrt((1 - before) / (1 - a)) * math.sqrt(1 - a / before)
            x_0 = self.x_0(x, a)
            eps = (x - math.sqrt(a) * x_0) / math.sqrt(1 - a)
            x = math.sqrt(before) * x_0 + math.sqrt(1 - before - sigma**2) * eps + sigma * self.noise(i)
        return x

    def dpm_solver(self, stochastic: bool, to_x_0: bool = True) -> Tensor:
        """Lu et al. 2022: the integral over lambda of x_0's line through its last two values.

        x_t = sigma_t / sigma_s x_s + sigma_t * (integral of e^lambda x_0(lambda)), the line's slope being
        (x_0 - x_0 before) / (lambda - lambda before), taken at half the step (the paper's approximation of
        the second integral).
        """
        x, lambda_before, x_0_before = self.start, None, None
        for i in reversed(range(1, len(self.steps))):
            a, b = self.alpha_bars[i], self.alpha_bars[i - 1]
            lambda_s, lambda_t = (math.log(math.sqrt(c) / math.sqrt(1 - c)) for c in (a, b))
            x_0 = self.x_0(x, a)
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
        return self.x_0(x, self.alpha_bars[0]) if to_x_0 else x

    def heun(self, to_x_0: bool = True) -> Tensor:
        """Karras et al. 2022, algorithm 1, in x = x_t / sqrt(alpha-bar), without churn."""
        sigmas = [math.sqrt((1 - a) / a) for a in self.alpha_bars]
        x = self.start / math.sqrt(self.alpha_bars[-1])

        def derivative(x: Tensor, i: int) -> Tensor:
            return (x - self.x_0(math.sqrt(self.alpha_bars[i]) * x, self.alpha_bars[i])) / sigmas[i]

        for i in reversed(range(1, len(self.steps))):
            d = derivative(x, i)
            euler = x + (sigmas[i - 1] - sigmas[i]) * d
            x = x + (sigmas[i - 1] - sigmas[i]) * (d / 2 + derivative(euler, i - 1) / 2)
        if to_x_0:
            return x - sigmas[0] * derivative(x, 0)
        return math.sqrt(self.alpha_bars[0]) * x


class Unfinished:
    """A sampler that ends at x_t of the last step visited, where solvers can be compared, not at x_0."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler

    def __call__(self, *arguments: object, **settings: object) -> Tensor:
        path = Path()
        self.sampler(*arguments, **settings, on_step=path)
        return list(path.x_t.values())[-1]


T = 60
UNEVEN = [0, 2, 5, 6, 15, 30, 44, 59]
CASES: dict[str, tuple[Callable[..., Sampler], Callable[[Affine], Tensor], Variance]] = {
    "ancestral, small": (Ancestral, lambda exact: exact.ancestral(large=False), FixedSmall()),
    "ancestral, large": (Ancestral, lambda exact: exact.ancestral(large=True), FixedLarge()),
    "ddim": (DDIM, lambda exact: exact.ddim(0.0), FixedSmall()),
    "ddim, eta 0.6": (lambda **k: DDIM(eta=0.6, **k), lambda exact: exact.ddim(0.6), FixedSmall()),
    "ddim, eta 1": (lambda **k: DDIM(eta=1.0, **k), lambda exact: exact.ddim(1.0), FixedSmall()),
    "ddim, to t = 0": (
        lambda **k: Unfinished(DDIM(eta=0.6, **k)),
        lambda exact: exact.ddim(0.6, to_x_0=False),
        FixedSmall(),
    ),
    "dpm_solver": (DPMSolver, lambda exact: exact.dpm_solver(False), FixedSmall()),
    "dpm_solver, sde": (
        lambda **k: DPMSolver(stochastic=True, **k),
        lambda exact: exact.dpm_solver(True),
        FixedSmall(),
    ),
    "dpm_solver, sde, to t = 0": (
        lambda **k: Unfinished(DPMSolver(stochastic=True, **k)),
        lambda exact: exact.dpm_solver(True, to_x_0=False),
        FixedSmall(),
    ),
    "heun": (Heun, lambda exact: exact.heun(), FixedSmall()),
    "heun, to t = 0": (
        lambda **k: Unfinished(Heun(**k)),
        lambda exact: exact.heun(to_x_0=False),
        FixedSmall(),
    ),
}


@pytest.mark.parametrize("make_schedule", [linear, cosine])
@pytest.mark.parametrize("steps", [list(range(T)), UNEVEN], ids=["every step", "uneven steps"])
@pytest.mark.parametrize("case", CASES)
def test_mean_and_covariance_are_those_of_the_papers_formulas(
    case: str, steps: list[int], make_schedule: Callable[[int], NoiseSchedule]
):
    make, propagate, variance = CASES[case]
    schedule = make_schedule(T)
    settings = {"num_steps": None} if len(steps) == T else {"timesteps": steps}
    found = affine_map(make(**settings), exact_denoiser(schedule, variance=variance), schedule, steps)
    expected = propagate(Affine(schedule, steps))
    torch.testing.assert_close(found[:, 0], expected[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(
        found[:, 1:] @ found[:, 1:].T, expected[:, 1:] @ expected[:, 1:].T, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("case", CASES)
def test_a_start_below_the_top_begins_there(case: str):
    make, propagate, variance = CASES[case]
    schedule = linear(T)
    steps = [0, 2, 5, 6, 15, 25]
    denoiser = exact_denoiser(schedule, variance=variance)
    found = affine_map(make(timesteps=UNEVEN), denoiser, schedule, steps, start=25)
    expected = propagate(Affine(schedule, steps))
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize(
    ("sampler", "within"),
    [
        (Ancestral(), 0.04),  # its small variance is that of data in a single point: the spread is too small
        (DDIM(None), 0.02),
        (DPMSolver(100), 0.005),
        (DPMSolver(100, stochastic=True), 0.02),
        (Heun(50), 0.005),
    ],
)
def test_the_data_come_out(sampler: Sampler, within: float):
    """Apart from all formulas: the data's own moments, as nearly as a chain of 100 steps allows."""
    schedule = linear(100)
    found = affine_map(sampler, exact_denoiser(schedule), schedule, list(range(100)))
    torch.testing.assert_close(found[:, 0], MEAN, atol=within, rtol=0)
    torch.testing.assert_close(found[:, 1:] @ found[:, 1:].T, COVARIANCE, atol=within, rtol=0)


def error_at_the_end(sampler: Sampler) -> float:
    """Distance at t = 0 from the solution of the probability-flow ODE for data N(0.1, 0.5^2).

    The ODE moves a Gaussian's quantiles: (x_t - mean_t) / std_t stays what it is.
    """
    schedule = linear(1000)
    mean, covariance = torch.tensor([0.1], dtype=torch.float64), torch.tensor([[0.25]], dtype=torch.float64)
    x_t = torch.tensor([-1.0, 1.5], dtype=torch.float64).view(2, 1, 1, 1)
    end, begin = float(schedule.alphas_cumprod[0]), float(schedule.alphas_cumprod[-1])
    quantile = (x_t - 0.1 * math.sqrt(begin)) / math.sqrt(0.25 * begin + 1 - begin)
    exact = 0.1 * math.sqrt(end) + math.sqrt(0.25 * end + 1 - end) * quantile
    found = sampler(exact_denoiser(schedule, mean, covariance), schedule, x_t, noise=no_noise)
    return float((found - exact).abs().max())


@pytest.mark.parametrize(("make", "order"), [(DDIM, 1), (DPMSolver, 2), (Heun, 2)])
def test_order_of_accuracy(make: Callable[..., Sampler], order: int):
    """From t = 999 to t = 0 in 27, 37, 111 and 333 equal steps of 37, 27, 9 and 3."""
    counts = (27, 37, 111, 333)
    errors = [error_at_the_end(Unfinished(make(count + 1))) for count in counts]
    slopes = [
        math.log(errors[i] / errors[i + 1]) / math.log(counts[i + 1] / counts[i])
        for i in range(len(counts) - 1)
    ]
    assert errors == sorted(errors, reverse=True)
    assert abs(slopes[-1] - order) < 0.15, slopes


def images(n: int) -> Tensor:
    eps = torch.randn(D, n, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    return as_images(MEAN[:, None] + ROOT @ eps)


@pytest.mark.parametrize("start", [None, 400])
def test_ddim_decodes_what_its_inversion_encoded(start: int | None):
    """0.0006 and 0.0002 at 200 steps."""
    schedule = linear(1000)
    denoiser = exact_denoiser(schedule)
    x_0 = images(64)

    def error(steps: int) -> float:
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
    for start in (999, 300):
        x_0 = as_images(torch.cat([torch.zeros(D, 1, dtype=torch.float64), IDENTITY], dim=1))
        x_t = DDIMInversion(None)(exact_denoiser(schedule), schedule, x_0, start=start)[:, :, 0, 0].T
        matrix = x_t[:, 1:] - x_t[:, :1]
        alpha_bar = float(schedule.alphas_cumprod[start])
        mean = x_t[:, 0] + matrix @ MEAN
        torch.testing.assert_close(mean, math.sqrt(alpha_bar) * MEAN, atol=0.01, rtol=0)
        covariance = alpha_bar * COVARIANCE + (1 - alpha_bar) * IDENTITY
        torch.testing.assert_close(matrix @ COVARIANCE @ matrix.T, covariance, atol=0.04, rtol=0)


def test_samplers_that_solve_the_same_equation_meet():
    """From a noised image at t = 600, all deterministic ones go to the same x_0."""
    schedule = linear(1000)
    denoiser = exact_denoiser(schedule)
    x_0 = images(8)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    x_t = q_sample(schedule, x_0, torch.full((8,), 600), eps)
    reference = Heun(200)(denoiser, schedule, x_t, noise=no_noise, start=600)
    for sampler in (DDIM(None), DPMSolver(100), Heun(60)):
        found = sampler(denoiser, schedule, x_t, noise=no_noise, start=600)
        torch.testing.assert_close(found, reference, atol=0.01, rtol=0)
