"""Samplers: one step and whole trajectories against diffusers, on the same noise and the same made-up
network.
"""

from collections.abc import Callable

import pytest
import torch
from conftest import first_everyday
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, predict_eps, q_sample
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.samplers import DDIM, Ancestral, Sampler
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Variance

SHAPE = (2, 3, 4, 4)


def network(x: Tensor, t: Tensor) -> Tensor:
    """Any function of x_t and t that is neither linear nor small: it overshoots [-1, 1], so clipping
    matters.
    """
    phase = t.to(x.dtype).view(-1, 1, 1, 1) / 100
    return torch.tanh(1.3 * x + phase.sin()) + 0.2 * x.roll(1, -1)


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t), dtype=like.dtype)


def start_noise() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(12345), dtype=torch.float64)


def in_float64(scheduler: DDPMScheduler | DDIMScheduler, schedule: NoiseSchedule) -> None:
    scheduler.betas = schedule.betas
    scheduler.alphas = 1 - schedule.betas
    scheduler.alphas_cumprod = schedule.alphas_cumprod.clone()
    scheduler.one = torch.ones((), dtype=torch.float64)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)


@pytest.mark.parametrize("make_schedule", [linear, cosine])
@pytest.mark.parametrize(
    ("variance", "their_variance"), [(FixedSmall(), "fixed_small"), (FixedLarge(), "fixed_large")]
)
@pytest.mark.parametrize("clip", first_everyday([True, False]))
def test_ancestral_trajectory_agrees_with_diffusers(
    make_schedule: Callable[[], NoiseSchedule], variance: Variance, their_variance: str, clip: bool
):
    schedule = make_schedule()
    scheduler = DDPMScheduler(
        trained_betas=schedule.betas.numpy(), clip_sample=clip, variance_type=their_variance
    )
    in_float64(scheduler, schedule)
    scheduler.set_timesteps(1000)
    path: dict[int, Tensor] = {}
    ours = Ancestral()(
        Denoiser(network, Parametrization(Epsilon(), variance), clip=clip),
        schedule,
        start_noise(),
        noise=noise_at,
        on_step=lambda t, x_t, x_0: path.update({t: x_t}),
    )
    x_t = start_noise()
    for t in range(999, -1, -1):
        torch.testing.assert_close(path[t], x_t, atol=1e-4, rtol=1e-6)
        output = network(x_t, torch.full((2,), t))
        # a single step is compared from our x_t as well, where errors cannot have summed up or died away
        single = scheduler.step(network(path[t], torch.full((2,), t)), t, path[t], generator=generator_at(t))
        following = path[t - 1] if t else ours
        torch.testing.assert_close(following, single.prev_sample, atol=1e-5, rtol=1e-7)
        x_t = scheduler.step(output, t, x_t, generator=generator_at(t)).prev_sample
    torch.testing.assert_close(ours, x_t, atol=1e-4, rtol=1e-6)


def generator_at(t: int) -> torch.Generator:
    return torch.Generator().manual_seed(t)


@pytest.mark.parametrize("make_schedule", [linear, cosine])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", first_everyday([True, False]))
def test_ddim_trajectory_agrees_with_diffusers(
    make_schedule: Callable[[], NoiseSchedule], eta: float, clip: bool
):
    """On every step of the schedule, where both visit the same ones; eps is made anew from the clipped
    x_0.
    """
    schedule = make_schedule()
    scheduler = DDIMScheduler(trained_betas=schedule.betas.numpy(), clip_sample=clip, set_alpha_to_one=True)
    in_float64(scheduler, schedule)
    scheduler.set_timesteps(1000)
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()), clip=clip)
    ours = DDIM(num_steps=None, eta=eta)(denoiser, schedule, start_noise(), noise=noise_at)
    x_t = start_noise()
    for t in range(999, -1, -1):
        output = network(x_t, torch.full((2,), t))
        x_t = scheduler.step(
            output, t, x_t, eta=eta, use_clipped_model_output=True, variance_noise=noise_at(t, x_t)
        ).prev_sample
    torch.testing.assert_close(ours, x_t, atol=1e-4, rtol=1e-6)


def test_ddim_on_a_shortened_chain_agrees_with_diffusers():
    """diffusers' "leading" steps 0, 20 ... 980: ours start at 980 and are as evenly spaced."""
    schedule = linear()
    scheduler = DDIMScheduler(
        trained_betas=schedule.betas.numpy(), clip_sample=True, timestep_spacing="leading"
    )
    in_float64(scheduler, schedule)
    scheduler.set_timesteps(50)
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    visited: list[int] = []
    ours = DDIM(num_steps=50)(
        denoiser,
        schedule,
        start_noise(),
        noise=noise_at,
        start=980,
        on_step=lambda t, x_t, x_0: visited.append(t),
    )
    assert visited == scheduler.timesteps.tolist()
    x_t = start_noise()
    for t in visited:
        output = network(x_t, torch.full((2,), t))
        x_t = scheduler.step(output, t, x_t, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(ours, x_t, atol=1e-4, rtol=1e-6)


def test_ddim_with_full_noise_is_ancestral_with_the_small_variance():
    schedule = linear(200)
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    ddim = DDIM(num_steps=None, eta=1.0)(denoiser, schedule, start_noise(), noise=noise_at)
    ancestral = Ancestral()(denoiser, schedule, start_noise(), noise=noise_at)
    torch.testing.assert_close(ddim, ancestral, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(20), DDIM(20), DDIM(None, eta=0.3)])
def test_a_network_that_knows_the_image_leads_back_to_it(sampler: Sampler):
    schedule = linear(100)
    image = torch.rand(SHAPE, dtype=torch.float64) * 2 - 1

    def oracle(x_t: Tensor, t: Tensor) -> Tensor:
        return predict_eps(schedule, x_t, t, image)

    denoiser = Denoiser(oracle, Parametrization(Epsilon(), FixedSmall()))
    for start in (99, 40):
        x_t = q_sample(schedule, image, torch.full((2,), start), start_noise())
        found = sampler(denoiser, schedule, x_t, noise=noise_at, start=start)
        torch.testing.assert_close(found, image, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("sampler", "nfe"), [(Ancestral(), 100), (Ancestral(20), 20), (DDIM(20), 20)])
def test_a_sampler_says_how_often_it_asks_the_network(sampler: Sampler, nfe: int):
    asked = []

    def counting(x_t: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return network(x_t, t)

    denoiser = Denoiser(counting, Parametrization(Epsilon(), FixedLarge()))
    sampler(denoiser, linear(100), start_noise(), noise=noise_at)
    assert len(asked) == sampler.nfe(linear(100)) == nfe
    assert asked == sorted(asked, reverse=True)
    assert asked[0] == 99
    assert asked[-1] == 0


def test_the_network_sees_the_steps_of_the_original_chain():
    seen = []

    def listening(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(int(t[0]))
        return network(x_t, t)

    DDIM(4)(
        Denoiser(listening, Parametrization(Epsilon(), FixedSmall())),
        linear(100),
        start_noise(),
        noise=noise_at,
    )
    assert seen == [99, 66, 33, 0]


def test_x_0_is_clipped_before_the_mean_is_formed():
    """With clipping, no x_{t-1} is further out than the posterior mean of the range of images."""
    schedule = linear(100)
    denoiser = Denoiser(
        lambda x, t: -50 * torch.ones_like(x), Parametrization(Epsilon(), FixedSmall()), clip=True
    )
    seen: list[Tensor] = []
    Ancestral()(
        denoiser, schedule, start_noise(), noise=noise_at, on_step=lambda t, x_t, x_0: seen.append(x_0)
    )
    assert all(float(x_0.max()) == 1.0 == float(x_0.min()) for x_0 in seen)


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_eta_out_of_range_is_refused(eta: float):
    with pytest.raises(ValueError, match="eta"):
        DDIM(eta=eta)


@pytest.mark.parametrize("sampler", [Ancestral(30), DDIM(30)])
def test_a_start_outside_the_schedule_is_refused(sampler: Sampler):
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    for start in (-1, 10, 100):
        with pytest.raises(ValueError, match="steps"):
            sampler(denoiser, linear(100), start_noise(), noise=noise_at, start=start)
