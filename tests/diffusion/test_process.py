"""The forward process and its posterior: against the definition, and against diffusers."""

from itertools import pairwise

import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion import (
    NoiseSchedule,
    evenly_spaced,
    predict_eps,
    predict_x_0,
    q_posterior_mean,
    q_sample,
)
from ddpm.diffusion.schedules import cosine, linear

SCHEDULES = {"linear": linear, "cosine": cosine}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    return SCHEDULES[request.param](1000)


def reference_scheduler(schedule: NoiseSchedule, **settings: object) -> DDPMScheduler:
    """diffusers' scheduler with float64 tables: its own are float32, which costs up to 1e-3 in a step."""
    scheduler = DDPMScheduler(trained_betas=schedule.betas.numpy(), clip_sample=False, **settings)
    scheduler.betas = schedule.betas
    scheduler.alphas = 1 - schedule.betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    scheduler.one = torch.ones((), dtype=torch.float64)
    return scheduler


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_tables_follow_from_betas(schedule: NoiseSchedule):
    alpha_bar, before = 1.0, 1.0
    for t, beta in enumerate(schedule.betas.tolist()):
        before, alpha_bar = alpha_bar, alpha_bar * (1 - beta)
        assert float(schedule.alphas_cumprod_prev[t]) == pytest.approx(before, abs=1e-10)
        assert float(schedule.snr[t]) == pytest.approx(alpha_bar / (1 - alpha_bar), rel=1e-10)
        variance = beta * (1 - before) / (1 - alpha_bar)
        assert float(schedule.posterior_variance[t]) == pytest.approx(variance, abs=1e-10)
    assert float(schedule.posterior_variance[0]) == 0
    assert float(schedule.posterior_variance_positive[0]) == float(schedule.posterior_variance[1])
    assert schedule.betas.dtype == schedule.alphas_cumprod.dtype == torch.float64


def test_closed_form_is_that_many_single_steps(schedule: NoiseSchedule):
    """q(x_t | x_0) has the mean and the variance that t + 1 steps x <- sqrt(1 - beta) x + sqrt(beta)
    noise give.
    """
    mean, variance = 1.0, 0.0
    x_0, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for t, beta in enumerate(schedule.betas.tolist()):
        mean, variance = (1 - beta) ** 0.5 * mean, (1 - beta) * variance + beta
        step = torch.tensor([t])
        assert float(q_sample(schedule, x_0, step, zero)) == pytest.approx(mean, abs=1e-10)
        assert float(q_sample(schedule, zero, step, x_0)) ** 2 == pytest.approx(variance, abs=1e-10)


def test_posterior_is_bayes_rule(schedule: NoiseSchedule):
    """Mean and variance from the product of the Gaussians q(x_t | x_{t-1}) and q(x_{t-1} | x_0)."""
    x_0, x_t = 0.7, -0.4
    for t in range(1, schedule.num_timesteps):
        beta, before = float(schedule.betas[t]), float(schedule.alphas_cumprod_prev[t])
        precision = (1 - beta) / beta + 1 / (1 - before)
        mean = ((1 - beta) ** 0.5 * x_t / beta + before**0.5 * x_0 / (1 - before)) / precision
        images = [torch.tensor([[value]], dtype=torch.float64) for value in (x_0, x_t)]
        found = q_posterior_mean(schedule, *images, torch.tensor([t]))
        assert float(found) == pytest.approx(mean, abs=1e-10)
        assert float(schedule.posterior_variance[t]) == pytest.approx(1 / precision, abs=1e-10)


def test_at_the_first_step_the_posterior_mean_is_x_0(schedule: NoiseSchedule):
    x_0, x_t, t = random(4, 2), random(4, 2), torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(q_posterior_mean(schedule, x_0, x_t, t), x_0)


def test_x_0_and_eps_are_two_names_of_the_same(schedule: NoiseSchedule):
    x_0, eps, t = random(50, 3, 4, 4), random(50, 3, 4, 4), torch.arange(0, 1000, 20)
    x_t = q_sample(schedule, x_0, t, eps)
    torch.testing.assert_close(predict_x_0(schedule, x_t, t, eps), x_0, atol=1e-8, rtol=0)
    torch.testing.assert_close(predict_eps(schedule, x_t, t, x_0), eps, atol=1e-10, rtol=0)


def test_q_sample_agrees_with_diffusers(schedule: NoiseSchedule):
    x_0, eps, t = random(50, 3, 4, 4), random(50, 3, 4, 4), torch.arange(0, 1000, 20)
    theirs = reference_scheduler(schedule).add_noise(x_0, eps, t)
    torch.testing.assert_close(q_sample(schedule, x_0, t, eps), theirs, atol=1e-5, rtol=0)


def test_posterior_agrees_with_diffusers(schedule: NoiseSchedule):
    """One step of its scheduler without noise, told x_0, is the posterior mean; its variance is compared
    for t > 0.
    """
    scheduler = reference_scheduler(schedule, prediction_type="sample", variance_type="fixed_small")
    scheduler.set_timesteps(1000)
    x_0, x_t = random(2, 3, 4, 4), random(2, 3, 4, 4)
    for t in range(1000):
        steps = torch.full((2,), t)
        mean = q_posterior_mean(schedule, x_0, x_t, steps)
        if t > 0:
            variance = float(scheduler._get_variance(t))
            assert float(schedule.posterior_variance[t]) == pytest.approx(variance, abs=1e-5)
            generator = torch.Generator().manual_seed(t)
            noise = torch.randn(x_t.shape, generator=generator, dtype=x_t.dtype)
            mean = mean + variance**0.5 * noise
        theirs = scheduler.step(x_0, t, x_t, generator=torch.Generator().manual_seed(t)).prev_sample
        torch.testing.assert_close(mean, theirs, atol=1e-5, rtol=0)


def test_a_shortened_chain_keeps_the_marginals(schedule: NoiseSchedule):
    steps = evenly_spaced(17, 999)
    short = schedule.respaced(steps)
    torch.testing.assert_close(short.alphas_cumprod, schedule.alphas_cumprod[steps], atol=1e-12, rtol=0)
    assert short.timesteps.tolist() == steps.tolist()
    twice = short.respaced([0, 5, 16])
    assert twice.timesteps.tolist() == [int(steps[0]), int(steps[5]), int(steps[16])]
    torch.testing.assert_close(schedule.respaced(range(1000)).betas, schedule.betas, atol=1e-12, rtol=0)


@pytest.mark.parametrize("steps", [[], [3, 2], [1, 1], [-1, 4], [0, 1000]])
def test_steps_that_are_no_chain_are_refused(steps: list[int]):
    with pytest.raises(ValueError, match="steps must rise within 0 to 999"):
        linear().respaced(steps)


@pytest.mark.parametrize(
    ("num_steps", "start"), [(1, 0), (1, 7), (2, 999), (50, 999), (400, 400), (401, 400)]
)
def test_evenly_spaced_steps_reach_from_0_to_the_start(num_steps: int, start: int):
    steps = evenly_spaced(num_steps, start).tolist()
    assert len(steps) == num_steps
    assert steps[-1] == start
    assert steps[0] == (0 if num_steps > 1 else start)
    gaps = {b - a for a, b in pairwise(steps)}
    assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize(("num_steps", "start"), [(0, 10), (12, 10)])
def test_more_steps_than_there_are_is_refused(num_steps: int, start: int):
    with pytest.raises(ValueError, match="has 1 to 11 steps"):
        evenly_spaced(num_steps, start)


def test_lookup_is_float32_unless_asked_in_float64():
    schedule = linear()
    t = torch.tensor([0, 999])
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        found = schedule.lookup("alphas_cumprod", t, torch.zeros(2, 1, 1, 1, dtype=dtype))
        assert found.dtype == torch.float32
        assert found.shape == (2, 1, 1, 1)
    assert schedule.lookup("alphas_cumprod", t, torch.zeros(2, dtype=torch.float64)).dtype == torch.float64
