"""Schedules against their formulas, written here a second time and in other words."""

import math

import pytest
import torch

from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.schedules import cosine, linear


@pytest.mark.parametrize("num_timesteps", [25, 100, 1000, 4000])
def test_linear_is_the_papers_scaled_with_its_length(num_timesteps: int):
    schedule = linear(num_timesteps)
    first, last = 1e-4 * 1000 / num_timesteps, 0.02 * 1000 / num_timesteps
    alpha_bar = 1.0
    for t in range(num_timesteps):
        beta = first + (last - first) * t / (num_timesteps - 1)
        alpha_bar *= 1 - beta
        assert abs(float(schedule.betas[t]) - beta) < 1e-10
        assert abs(float(schedule.alphas_cumprod[t]) - alpha_bar) < 1e-10


def test_linear_ends_where_the_paper_says():
    assert float(linear(1000).alphas_cumprod[-1]) == pytest.approx(4.036e-5, rel=1e-3)
    assert float(linear(100).alphas_cumprod[-1]) == pytest.approx(2.0e-5, rel=0.05)
    assert float(linear(25).alphas_cumprod[-1]) == pytest.approx(2.4e-7, rel=0.05)


def test_linear_refuses_a_chain_so_short_that_beta_reaches_one():
    with pytest.raises(ValueError, match="num_timesteps=20: the last beta would be 1"):
        linear(20)
    assert float(linear(21).betas[-1]) < 1


@pytest.mark.parametrize("num_timesteps", [10, 1000, 4000])
def test_cosine_follows_the_squared_cosine_until_beta_is_clipped(num_timesteps: int):
    schedule = cosine(num_timesteps)

    def alpha_bar(steps: int) -> float:
        angle = (steps / num_timesteps + 0.008) / 1.008 * math.pi / 2
        return math.cos(angle) ** 2

    for t in range(num_timesteps):
        unclipped = 1 - alpha_bar(t + 1) / alpha_bar(t)
        assert abs(float(schedule.betas[t]) - min(unclipped, 0.999)) < 1e-10
    kept = schedule.betas < 0.999
    t = int(kept.nonzero().max())
    assert float(schedule.alphas_cumprod[t]) == pytest.approx(alpha_bar(t + 1) / alpha_bar(0), abs=1e-10)


@pytest.mark.parametrize("betas", [[0.1, 1.0, 0.1], [0.0, 0.1], [0.1, -0.1], [0.1, 1.1], [0.1, math.nan]])
def test_betas_out_of_range_are_refused_with_their_place(betas: list[float]):
    with pytest.raises(ValueError, match="at t = "):
        NoiseSchedule(torch.tensor(betas, dtype=torch.float64))


def test_only_the_last_beta_may_be_one():
    assert float(NoiseSchedule(torch.tensor([0.1, 1.0])).alphas_cumprod[-1]) == 0
