"""Samplers that others state in x / sqrt(alpha-bar) and sigma: Euler, Euler ancestral, and EDM's stochastic
one, each written here by itself in that frame.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Prediction
from ddpm.diffusion.samplers import DDIM, Heun, Sampler, Trajectory, random_steps
from ddpm.diffusion.schedules import cosine, linear

SCHEDULE = linear(200)
SIGMAS = (1 / SCHEDULE.alphas_cumprod - 1).sqrt()
STEPS = [0, 3, 8, 20, 41, 90, 140, 199]


def denoised(x: Tensor, sigma: float) -> Tensor:
    """x_0 for x = x_0 + sigma eps, by a network that is far from linear."""
    return 0.8 * torch.tanh(1.2 * x / math.sqrt(1 + sigma**2) + 0.3 * math.log(sigma))


def denoiser(schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
    """The same, in the frame of the chain."""
    alpha_bar = float(schedule.alphas_cumprod[t[0]])
    x_0 = denoised(x_t / math.sqrt(alpha_bar), math.sqrt((1 - alpha_bar) / alpha_bar))
    return Prediction(x_0, (x_t - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar), torch.zeros(1))


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t), dtype=like.dtype)


def x_top() -> Tensor:
    return noise_at(999, torch.empty(2, 3, 4, 4, dtype=torch.float64))


def assert_ends_where(
    sampler: Sampler, expected: Callable[[Tensor], Tensor], start: int | None = None
) -> None:
    top = 199 if start is None else start
    found = sampler(denoiser, SCHEDULE, x_top(), noise=noise_at, start=start)
    x = expected(x_top() / SCHEDULE.alphas_cumprod[top].sqrt())
    torch.testing.assert_close(found, x, atol=1e-10, rtol=0)


def levels(steps: list[int]) -> list[tuple[int, float, float]]:
    """(step, its sigma, the sigma below it), downwards; the last is 0."""
    sigmas = [0.0, *(float(SIGMAS[t]) for t in steps)]
    return [(steps[k], sigmas[k + 1], sigmas[k]) for k in reversed(range(len(steps)))]


def euler_ancestral(x: Tensor, eta: float, steps: list[int]) -> Tensor:
    """As in k-diffusion: down to sigma_down without noise, then up to the next sigma; eta 0 is Euler."""
    for t, sigma, below in levels(steps):
        up = min(below, eta * math.sqrt(below**2 * (sigma**2 - below**2) / sigma**2))
        down = math.sqrt(below**2 - up**2)
        x = x + (x - denoised(x, sigma)) / sigma * (down - sigma)
        if below > 0:
            x = x + noise_at(t, x) * up
    return x


@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_ddim_is_euler_and_euler_ancestral(eta: float):
    """Euler is DDIM with eta 0, Euler ancestral with eta 1, and k-diffusion's eta is DDIM's in between."""
    assert_ends_where(DDIM(timesteps=STEPS, eta=eta), lambda x: euler_ancestral(x, eta, STEPS))


def edm(
    x: Tensor, steps: list[int], churn: float, low: float, high: float, deviation: float, start: int = 199
) -> Tensor:
    """Karras et al. 2022, algorithm 2, with sigma-hat rounded up to a step of the chain up to the start."""
    for t, sigma, below in levels(steps):
        gamma = min(churn / len(steps), math.sqrt(2) - 1) if low <= sigma <= high else 0.0
        reach = [float(s) for s in SIGMAS[: start + 1] if s >= sigma * (1 + gamma) * (1 - 1e-12)]
        hat = min(reach, default=float(SIGMAS[start]))
        x = x + math.sqrt(max(hat**2 - sigma**2, 0.0)) * deviation * noise_at(t, x)
        d = (x - denoised(x, hat)) / hat
        euler = x + (below - hat) * d
        if below > 0:
            euler = x + (below - hat) * (d + (euler - denoised(euler, below)) / below) / 2
        x = euler
    return x


@pytest.mark.parametrize(
    "settings",
    [
        {"churn": 0.0},
        {"churn": 1.0},
        {"churn": 40.0},
        {"churn": 40.0, "churn_min": 0.05, "churn_max": 4.0, "churn_noise": 1.007},
    ],
)
@pytest.mark.parametrize("start", [None, 90])
def test_heun_with_churn_is_the_stochastic_sampler_of_edm(settings: dict, start: int | None):
    steps = [t for t in STEPS if start is None or t <= start]
    churn, low = settings["churn"], settings.get("churn_min", 0.0)
    high, deviation = settings.get("churn_max", math.inf), settings.get("churn_noise", 1.0)

    def expected(x: Tensor) -> Tensor:
        return edm(x, steps, churn, low, high, deviation, steps[-1])

    assert_ends_where(Heun(timesteps=STEPS, **settings), expected, start)


def test_every_step_may_be_raised_on_the_whole_chain():
    """Neighbouring steps, two of which may be raised to the same one, draw noise of their own."""
    sampler = Heun(None, churn=20.0)
    steps = list(range(61))
    assert_ends_where(sampler, lambda x: edm(x, steps, 20.0, 0.0, math.inf, 1.0, 60), start=60)
    assert random_steps(sampler, SCHEDULE, start=60) == list(range(59, -1, -1))


def test_churn_uses_the_network_where_noise_is_raised_to():
    path, sampler = Trajectory(), Heun(timesteps=[0, 50, 100], churn=1.0)
    sampler(denoiser, SCHEDULE, x_top(), noise=noise_at, on_step=path)
    used = sampler.chain(SCHEDULE).timesteps.tolist()
    assert sorted(path.x_t) == used
    assert used[0] == 0
    assert {50, 100} < set(used)
    assert len(used) == 5, "the start is not raised"
    assert sampler.nfe(SCHEDULE) == 5
    assert random_steps(sampler, SCHEDULE) == [50, 0]
    assert Heun(4).chain(SCHEDULE).num_timesteps == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"churn": -1.0}, r"sampler\.churn=-1.0: must be at least 0"),
        ({"churn": math.inf}, r"sampler\.churn=inf: .* finite"),
        ({"churn_noise": -0.1}, r"sampler\.churn_noise=-0.1: must be at least 0"),
        ({"churn_min": 2.0, "churn_max": 1.0}, r"sampler\.churn_max=1.0: .* sampler\.churn_min=2.0, or null"),
    ],
)
def test_churn_that_makes_no_sense_is_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Heun(5, **settings)


def test_churn_is_of_whole_schedules():
    with pytest.raises(ValueError, match=r"sampler\.churn: raises noise to steps of a whole schedule"):
        Heun(5, churn=1.0).chain(cosine(50).respaced(range(0, 50, 2)))
