"""Whole trajectories against diffusers' schedulers, for what networks predict: eps, x_0 and v.

Both sides get the same made-up network and the same noise. Their tables are float32; float64 ones are put in
their place.
"""

import math
from typing import Literal

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from ddpm.diffusion import Denoiser, Parametrization
from ddpm.diffusion.objectives import X0, Epsilon, V
from ddpm.diffusion.samplers import DDIM, DEIS, Ancestral, DDIMInversion, DPMSolver, Heun, Trajectory
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Variance

SHAPE = (2, 3, 4, 4)
SCHEDULE = linear(1000)
ALPHA_BARS = SCHEDULE.alphas_cumprod.tolist()
SIGMAS = [math.sqrt((1 - a) / a) for a in ALPHA_BARS]

Kind = Literal["epsilon", "sample", "v_prediction"]
every_kind = pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])


def output(kind: Kind, x: Tensor, t: int) -> Tensor:
    """A network that knows no data, but is about as far from linear as a trained one."""
    signal, sigma = math.sqrt(ALPHA_BARS[t]), math.sqrt(1 - ALPHA_BARS[t])
    x_0 = 0.8 * torch.tanh(1.2 * signal * x + 0.4 * x.roll(1, -1) - 0.3 * math.sin(t / 100))
    eps = (x - signal * x_0) / sigma
    return {"epsilon": eps, "sample": x_0, "v_prediction": signal * eps - sigma * x_0}[kind]


OBJECTIVES = {"epsilon": Epsilon(), "sample": X0(), "v_prediction": V()}


def denoiser(kind: Kind, variance: Variance | None = None) -> Denoiser:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return output(kind, x, int(t[0]))

    return Denoiser(network, Parametrization(OBJECTIVES[kind], variance or FixedSmall()), clip=False)


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t), dtype=like.dtype)


def start_noise() -> Tensor:
    return noise_at(12345, torch.empty(SHAPE, dtype=torch.float64))


def in_float64(scheduler: DDPMScheduler | DDIMScheduler | DDIMInverseScheduler) -> None:
    scheduler.betas = SCHEDULE.betas
    scheduler.alphas = 1 - SCHEDULE.betas
    scheduler.alphas_cumprod = SCHEDULE.alphas_cumprod.clone()
    scheduler.one = scheduler.final_alpha_cumprod = scheduler.initial_alpha_cumprod = torch.ones(
        (), dtype=torch.float64
    )


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


BETAS = SCHEDULE.betas.numpy()
LEADING = list(range(0, 1000, 20))


@every_kind
@pytest.mark.parametrize(
    ("variance", "their_variance"), [(FixedSmall(), "fixed_small"), (FixedLarge(), "fixed_large")]
)
def test_ancestral_on_a_shortened_chain(kind: Kind, variance: Variance, their_variance: str):
    scheduler = DDPMScheduler(
        trained_betas=BETAS,
        prediction_type=kind,
        clip_sample=False,
        variance_type=their_variance,
        timestep_spacing="leading",
    )
    in_float64(scheduler)
    scheduler.set_timesteps(50)
    path = Trajectory()
    ours = Ancestral(timesteps=LEADING)(
        denoiser(kind, variance), SCHEDULE, start_noise(), noise=noise_at, on_step=path
    )
    x_t = start_noise()
    for t in scheduler.timesteps.tolist():
        assert_same(path.x_t[t], x_t)
        x_t = scheduler.step(
            output(kind, x_t, t), t, x_t, generator=torch.Generator().manual_seed(t)
        ).prev_sample
    assert list(path.x_t) == scheduler.timesteps.tolist()
    assert_same(ours, x_t)


@every_kind
@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_ddim_on_a_shortened_chain(kind: Kind, eta: float):
    scheduler = DDIMScheduler(
        trained_betas=BETAS, prediction_type=kind, clip_sample=False, timestep_spacing="leading"
    )
    in_float64(scheduler)
    scheduler.set_timesteps(50)
    path = Trajectory()
    ours = DDIM(eta=eta, timesteps=LEADING)(
        denoiser(kind), SCHEDULE, start_noise(), noise=noise_at, on_step=path
    )
    x_t = start_noise()
    for t in scheduler.timesteps.tolist():
        assert_same(path.x_t[t], x_t)
        found = scheduler.step(
            output(kind, x_t, t), t, x_t, eta=eta, variance_noise=noise_at(t, x_t) if eta else None
        )
        assert_same(path.x_0[t], found.pred_original_sample)
        x_t = found.prev_sample
    assert_same(ours, x_t)


@every_kind
def test_ddim_inversion(kind: Kind):
    """Their step is eq. 13 upwards with the eps it is given, and leaves open where that comes from; their
    pipelines ask the network at the step to reach, about the x of the step before. Ours is asked there about
    x moved on by the last eps. x_0 and v must be given as eps: from an output for the step to reach their
    scheduler would make eps with the alpha-bar of the step before, and at x_0 itself divide by 0.
    """
    scheduler = DDIMInverseScheduler(trained_betas=BETAS, prediction_type="epsilon", clip_sample=False)
    in_float64(scheduler)
    scheduler.set_timesteps(50)
    assert scheduler.timesteps.tolist() == LEADING
    path = Trajectory()
    x_0 = torch.tanh(start_noise())
    ours = DDIMInversion(timesteps=LEADING)(denoiser(kind), SCHEDULE, x_0, on_step=path)
    x_t, eps = x_0, torch.zeros_like(x_0)
    for t in LEADING:
        asked = scheduler.step(eps, t, x_t).prev_sample
        assert_same(path.x_t[t], asked)
        eps = output("epsilon", asked, t)
        x_t = scheduler.step(eps, t, x_t).prev_sample
    assert list(path.x_t) == LEADING
    assert_same(ours, x_t)


@every_kind
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(
    ("end", "count"), [("zero", 10), ("zero", 27), ("zero", 40), ("sigma_min", 27), ("sigma_min", 40)]
)
def test_dpm_solver(kind: Kind, stochastic: bool, end: str, count: int):
    """Their `count` steps leave t = 0 out: with the end at zero the last one goes from there on to x_0, and
    with the end at sigma_min to t = 0. (They lower the order of the latter below 15 steps, ours does not.)
    """
    scheduler = DPMSolverMultistepScheduler(
        trained_betas=BETAS,
        prediction_type=kind,
        algorithm_type="sde-dpmsolver++" if stochastic else "dpmsolver++",
        final_sigmas_type=end,
    )
    scheduler.set_timesteps(count)
    steps = scheduler.timesteps.tolist()
    last = {"zero": 0.0, "sigma_min": SIGMAS[0]}[end]
    scheduler.sigmas = torch.tensor([*(SIGMAS[t] for t in steps), last], dtype=torch.float64)
    if end == "zero":
        solver = DPMSolver(stochastic=stochastic, timesteps=steps[::-1])
    else:
        solver = DPMSolver(count + 1, stochastic=stochastic)
    path = Trajectory()
    ours = solver(denoiser(kind), SCHEDULE, start_noise(), noise=noise_at, on_step=path)
    x_t = start_noise()
    for t in steps:
        assert_same(path.x_t[t], x_t)
        noise = noise_at(t, x_t) if stochastic else None
        x_t = scheduler.step(output(kind, x_t, t), t, x_t, variance_noise=noise).prev_sample
    assert list(path.x_t) == (steps if end == "zero" else [*steps, 0])
    assert_same(ours if end == "zero" else path.x_t[0], x_t)


@every_kind
@pytest.mark.parametrize("order", [1, 2, 3])
def test_deis(kind: Kind, order: int):
    """Their steps end at t = 0, from where ours goes on to x_0. (Below 15 they lower the order of the last
    two, ours does not.)
    """
    scheduler = DEISMultistepScheduler(trained_betas=BETAS, prediction_type=kind, solver_order=order)
    scheduler.set_timesteps(27)
    steps = scheduler.timesteps.tolist()
    scheduler.sigmas = torch.tensor([SIGMAS[t] for t in [*steps, 0]], dtype=torch.float64)
    path = Trajectory()
    solver = DEIS(28, order=order)
    ours = solver(denoiser(kind), SCHEDULE, start_noise(), noise=noise_at, on_step=path)
    assert list(path.x_t) == [*steps, 0]
    x_t = start_noise()
    for t in steps:
        torch.testing.assert_close(path.x_t[t], x_t, atol=1e-8, rtol=0)
        x_t = scheduler.step(output(kind, x_t, t), t, x_t).prev_sample
    torch.testing.assert_close(path.x_t[0], x_t, atol=1e-8, rtol=0)
    assert torch.equal(ours, path.x_0[0])


@pytest.mark.parametrize(
    ("their_class", "eta"), [(EulerDiscreteScheduler, 0.0), (EulerAncestralDiscreteScheduler, 1.0)]
)
def test_euler_in_sigma_is_ddim(
    their_class: type[EulerDiscreteScheduler | EulerAncestralDiscreteScheduler], eta: float
):
    """Their x is x_t / sqrt(alpha-bar), and float32."""
    scheduler = their_class(trained_betas=BETAS)
    scheduler.set_timesteps(28)
    steps = scheduler.timesteps.tolist()
    scheduler.sigmas = torch.tensor([*(SIGMAS[int(t)] for t in steps), 0.0], dtype=torch.float64)
    path = Trajectory()
    ours = DDIM(28, eta=eta)(denoiser("epsilon"), SCHEDULE, start_noise(), noise=noise_at, on_step=path)
    assert list(path.x_t) == steps
    x = start_noise() / math.sqrt(ALPHA_BARS[999])
    for t in steps:
        x_t = math.sqrt(ALPHA_BARS[int(t)]) * x
        assert_same(path.x_t[int(t)], x_t)
        drawn = torch.Generator().manual_seed(int(t))
        x = scheduler.step(output("epsilon", x_t, int(t)), t, x, generator=drawn).prev_sample
    assert_same(ours, x)


@every_kind
@pytest.mark.parametrize("points", [28, 38, 112])
def test_heun(kind: Kind, points: int):
    """With these numbers of points their evenly spaced timesteps are whole. Their x is
    x_t / sqrt(alpha-bar).
    """
    scheduler = HeunDiscreteScheduler(trained_betas=BETAS, prediction_type=kind)
    scheduler.set_timesteps(points)
    steps = [int(t) for t in scheduler.timesteps]
    assert steps == scheduler.timesteps.tolist()
    visited = sorted(set(steps), reverse=True)
    sigmas = torch.tensor([SIGMAS[t] for t in visited] + [0.0], dtype=torch.float64)
    scheduler.sigmas = torch.cat([sigmas[:1], sigmas[1:-1].repeat_interleave(2), sigmas[-1:]])
    seen: list[tuple[int, Tensor, Tensor]] = []
    ours = Heun(points)(
        denoiser(kind), SCHEDULE, start_noise(), noise=noise_at, on_step=lambda *step: seen.append(step)
    )
    x = start_noise() / math.sqrt(ALPHA_BARS[999])
    assert [t for t, _, _ in seen] == steps
    for t, x_t, x_0 in seen:
        theirs = math.sqrt(ALPHA_BARS[t]) * x
        assert_same(x_t, theirs)
        step = scheduler.step(output(kind, theirs, t), float(t), x)
        assert_same(x_0, step.pred_original_sample)
        x = step.prev_sample
    assert_same(ours, x)
