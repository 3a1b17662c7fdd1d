"""Objectives: there and back, on whole and shortened chains; and learned variances between their ends."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, predict_eps, q_sample
from ddpm.diffusion.objectives import EDM, X0, Epsilon, Flow, Objective, PosteriorMean, V
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange

OBJECTIVES = [Epsilon(), X0(), V(), PosteriorMean(), Flow(), EDM()]
CHAINS = {
    "whole": linear(100),
    "short": linear(100).respaced([0, 3, 20, 50, 98]),
    "twice": linear(100).respaced(range(0, 100, 2)).respaced([0, 3, 20, 49]),
}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def images(schedule: NoiseSchedule) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x_0, t, eps, x_t), one at every step."""
    t = torch.arange(schedule.num_timesteps)
    x_0, eps = random(len(t), 2, 3, 3), random(len(t), 2, 3, 1).expand(-1, -1, -1, 3)
    return x_0, t, eps, q_sample(schedule, x_0, t, eps)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_target_stands_for_x_0(objective: Objective, chain: str):
    schedule = CHAINS[chain]
    x_0, t, eps, x_t = images(schedule)
    target = objective.target(schedule, x_0, t, eps)
    torch.testing.assert_close(objective.x_0(schedule, x_t, t, target), x_0, atol=1e-9, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("other", OBJECTIVES)
def test_an_output_is_translated_into_any_other(objective: Objective, other: Objective):
    schedule = CHAINS["whole"]
    x_0, t, eps, x_t = images(schedule)
    x_0_found = objective.x_0(schedule, x_t, t, objective.target(schedule, x_0, t, eps))
    found = other.target(schedule, x_0_found, t, predict_eps(schedule, x_t, t, x_0_found))
    torch.testing.assert_close(found, other.target(schedule, x_0, t, eps), atol=1e-8, rtol=0)


def test_targets_are_what_the_papers_say():
    schedule = CHAINS["whole"]
    x_0, t, eps, x_t = images(schedule)
    alpha_bar = (1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta, alpha_bar, before = ((v.view(-1, 1, 1, 1)) for v in (1 - alpha_bar / before, alpha_bar, before))
    mean = (before.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - before) * x_t) / (1 - alpha_bar)
    v = alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0
    for objective, expected in zip(OBJECTIVES, (eps, x_0, v, mean), strict=False):
        torch.testing.assert_close(objective.target(schedule, x_0, t, eps), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_a_shortened_chain_the_network_outputs_as_on_the_whole(objective: Objective):
    """The output that is right on the whole chain leads to the same x_0 on the short one."""
    whole, short = CHAINS["whole"], CHAINS["short"]
    x_0, t, eps, x_t = images(short)
    output = objective.target(whole, x_0, short.timesteps, eps)
    torch.testing.assert_close(objective.x_0(short, x_t, t, output), x_0, atol=1e-9, rtol=0)
    torch.testing.assert_close(objective.target(short, x_0, t, eps), output, atol=1e-9, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("chain", CHAINS)
def test_an_error_of_the_output_amounts_to_one_of_x_0(objective: Objective, chain: str):
    schedule = CHAINS[chain]
    x_0, t, eps, x_t = images(schedule)
    target = objective.target(schedule, x_0, t, eps)
    wrong = objective.x_0(schedule, x_t, t, target + 0.3)
    error = (wrong - x_0).square().mean((1, 2, 3))
    own = torch.full((len(t),), 0.09, dtype=torch.float64)
    torch.testing.assert_close(objective.x_0_error(schedule, t, own), error, atol=0, rtol=1e-7)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_who_is_defined_at_zero_snr_says_so(objective: Objective):
    """x_0 follows there, and what the network is given is a number."""
    schedule = cosine(20, zero_terminal_snr=True)
    x_0, t, eps, x_t = images(schedule)
    given = objective.network_inputs(schedule, x_t, t)[1]
    assert given[:-1].isfinite().all()
    found = objective.x_0(schedule, x_t, t, objective.target(schedule, x_0, t, eps))
    assert torch.allclose(found[:-1], x_0[:-1])
    follows = torch.allclose(found[-1], x_0[-1]) and bool(given[-1].isfinite())
    assert follows == objective.defined_at_zero_snr


@pytest.mark.parametrize("chain", CHAINS)
def test_learned_range_reaches_from_the_posteriors_variance_to_beta_of_the_chain_in_use(chain: str):
    schedule = CHAINS[chain]
    t = torch.arange(schedule.num_timesteps)
    x_t = random(len(t), 2, 3, 3)
    ends = []
    for output in (-1.0, 1.0, 0.0):
        found = LearnedRange().log_variance(schedule, x_t, t, torch.full_like(x_t, output))
        assert found.shape == x_t.shape
        ends.append(found[:, 0, 0, 0].exp())
    alpha_bar = CHAINS["whole"].alphas_cumprod[schedule.timesteps]
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta = 1 - alpha_bar / before
    small = beta * (1 - before) / (1 - alpha_bar)
    torch.testing.assert_close(ends[0][1:], small[1:], atol=1e-10, rtol=0)
    assert float(ends[0][0]) == pytest.approx(float(small[1]), abs=1e-10)
    torch.testing.assert_close(ends[1], beta, atol=1e-10, rtol=0)
    torch.testing.assert_close(ends[2], (ends[0] * ends[1]).sqrt(), atol=1e-10, rtol=0)


def test_learned_is_the_networks_output():
    schedule, x_t = CHAINS["short"], random(5, 1, 2, 2)
    assert Learned().log_variance(schedule, x_t, torch.arange(5), 3 * x_t) is not x_t
    torch.testing.assert_close(Learned().log_variance(schedule, x_t, torch.arange(5), 3 * x_t), 3 * x_t)


def test_the_networks_channels_are_told_apart():
    """The first C are the prediction, the others the variance."""
    schedule, x_t, t = CHAINS["whole"], random(4, 2, 3, 3), torch.tensor([0, 1, 50, 99])
    prediction, log_variance = random(4, 2, 3, 4)[..., :3], random(4, 2, 3, 5)[..., :3]
    output = torch.cat([prediction, log_variance], dim=1)
    found = Denoiser(lambda x, t: output, Parametrization(X0(), Learned()), clip=False)(schedule, x_t, t)
    assert torch.equal(found.x_0, prediction)
    assert torch.equal(found.log_variance, log_variance)
    assert [v.outputs for v in (FixedLarge, FixedSmall, Learned, LearnedRange)] == [0, 0, 1, 1]
