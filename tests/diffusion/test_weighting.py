"""Losses: weights as they convert between objectives, and which part of the network each one teaches."""

import math

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Parametrization, q_posterior_mean, q_sample
from ddpm.diffusion.objectives import X0, Epsilon, Objective, PosteriorMean, V
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance
from ddpm.diffusion.weighting import (
    P2,
    SNR,
    Hybrid,
    MinSNR,
    Noised,
    Simple,
    Uncertainty,
    VariationalBound,
    Weighting,
)

SCHEDULE = linear(100)
T = torch.arange(100)
ALPHA_BAR = (1 - torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)).cumprod(0)
S = ALPHA_BAR / (1 - ALPHA_BAR)
BEFORE = torch.cat([torch.ones(1, dtype=torch.float64), ALPHA_BAR[:-1]])
X_0_OF_MEAN = BEFORE.sqrt() * (1 - ALPHA_BAR / BEFORE) / (1 - ALPHA_BAR)
OBJECTIVES = {"epsilon": Epsilon(), "x_0": X0(), "v": V(), "mean": PosteriorMean()}


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noised(t: Tensor = T) -> Noised:
    x_0, eps = random(1, len(t), 2, 3, 3).clamp(-1, 1), random(2, len(t), 2, 3, 3)
    return Noised(x_0, t, eps, q_sample(SCHEDULE, x_0, t, eps))


def reading(objective: Objective, variance: Variance | None = None) -> Parametrization:
    return Parametrization(objective, variance or FixedLarge())


def weights_of(weighting: Weighting, objective: Objective) -> Tensor:
    """The factor on the network's own squared error at each t, from an output that is off by 0.5."""
    given = noised()
    output = objective.target(SCHEDULE, given.x_0, given.t, given.eps) + 0.5
    return weighting.losses(reading(objective), SCHEDULE, given, output) / 0.25


MIN_SNR = {
    "epsilon": S.clamp(max=3) / S,
    "x_0": S.clamp(max=3),
    "v": S.clamp(max=3) / (S + 1),
    "mean": S.clamp(max=3) / X_0_OF_MEAN**2,
}
SNR_ = {"epsilon": torch.ones(100).double(), "x_0": S, "v": S / (S + 1), "mean": S / X_0_OF_MEAN**2}
P2_ = {name: weight / (2 + S) ** 0.5 for name, weight in SNR_.items()}
SIMPLE = dict.fromkeys(OBJECTIVES, torch.ones(100).double())


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("weighting", "expected"),
    [(Simple(), SIMPLE), (SNR(), SNR_), (MinSNR(gamma=3.0), MIN_SNR), (P2(gamma=0.5, k=2.0), P2_)],
)
def test_weights_convert_as_the_papers_say(weighting: Weighting, expected: dict[str, Tensor], objective: str):
    found = weights_of(weighting, OBJECTIVES[objective])
    torch.testing.assert_close(found, expected[objective], atol=0, rtol=1e-8)


@pytest.mark.parametrize("weighting", [SNR(), MinSNR(), P2(), VariationalBound()])
def test_the_same_mistake_costs_the_same_whatever_is_predicted(weighting: Weighting):
    """x_0 is wrong by as much, said in four ways."""
    given = noised()
    wrong = given.x_0 + 0.1 * random(5, 100, 2, 3, 3)
    eps = (given.x_t - ALPHA_BAR.sqrt().view(-1, 1, 1, 1) * wrong) / (1 - ALPHA_BAR).sqrt().view(-1, 1, 1, 1)
    losses = [
        weighting.losses(
            reading(objective),
            SCHEDULE,
            given,
            # the mean's target makes x_t from its arguments, which is the same x_t
            objective.target(SCHEDULE, wrong, given.t, eps),
        )
        for objective in OBJECTIVES.values()
    ]
    for other in losses[1:]:
        torch.testing.assert_close(other, losses[0], atol=1e-9, rtol=1e-7)


def test_the_bounds_loss_is_written_out():
    """T times the KL divergence of the two Gaussians, in bits a dimension."""
    t = T[1:]
    given = noised(t)
    output = random(6, 99, 2, 3, 3)
    found = VariationalBound().losses(reading(X0(), FixedLarge()), SCHEDULE, given, output)
    beta = (1 - ALPHA_BAR / BEFORE)[1:].view(-1, 1, 1, 1)
    q_variance = (beta.flatten() * (1 - BEFORE[1:]) / (1 - ALPHA_BAR[1:])).view(-1, 1, 1, 1)
    means = [q_posterior_mean(SCHEDULE, x_0, given.x_t, t) for x_0 in (given.x_0, output)]
    p, q = (
        torch.distributions.Normal(mean, variance.sqrt().expand_as(mean))
        for mean, variance in zip(means[::-1], (beta, q_variance), strict=True)
    )
    kl = torch.distributions.kl_divergence(q, p).mean((1, 2, 3))
    torch.testing.assert_close(found, 100 * kl / math.log(2), atol=1e-8, rtol=1e-6)


def test_of_data_without_levels_the_first_term_is_of_a_density():
    given, asked = noised(torch.tensor([0, 4])), reading(X0(), LearnedRange())
    output = random(7, 2, 4, 3, 3)
    p = asked(SCHEDULE, given.x_t, given.t, output)
    density = torch.distributions.Normal(p.x_0, (p.log_variance / 2).exp())
    first = -100 * density.log_prob(given.x_0).mean((1, 2, 3)) / math.log(2)
    of_levels, found = (
        VariationalBound(levels).losses(asked, SCHEDULE, given, output) for levels in (True, False)
    )
    torch.testing.assert_close(found, torch.stack([first[0], of_levels[1]]))


@pytest.mark.parametrize("variance", [Learned(), LearnedRange()])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_in_the_hybrid_the_bound_does_not_reach_the_mean(objective: str, variance: Variance):
    given = noised()
    output = (0.3 * random(7, 100, 4, 3, 3)).requires_grad_()
    asked = reading(OBJECTIVES[objective], variance)

    def gradient(weighting: Weighting) -> tuple[Tensor, Tensor]:
        (found,) = torch.autograd.grad(weighting.losses(asked, SCHEDULE, given, output).sum(), output)
        return found[:, :2], found[:, 2:]

    (mean, spread), (simple, nothing), (bound_mean, bound) = (
        gradient(weighting) for weighting in (Hybrid(), Simple(), VariationalBound())
    )
    assert torch.equal(mean, simple)
    assert not nothing.any()
    assert bound_mean.abs().amin((1, 2, 3)).min() > 0
    torch.testing.assert_close(spread, 0.001 * bound)
    assert spread.abs().amax((1, 2, 3)).min() > 0
    assert torch.isfinite(bound).all()


def test_the_hybrid_is_the_simple_loss_and_a_thousandth_of_t_terms():
    given, output, asked = noised(), random(8, 100, 4, 3, 3), reading(Epsilon(), LearnedRange())
    losses = [
        weighting.losses(asked, SCHEDULE, given, output)
        for weighting in (Hybrid(), Simple(), VariationalBound(), Hybrid(0.5))
    ]
    torch.testing.assert_close(losses[0], losses[1] + 0.001 * losses[2])
    torch.testing.assert_close(losses[3], losses[1] + 0.5 * losses[2])


@pytest.mark.parametrize("objective", [Epsilon(), X0(), V()])
def test_losses_in_single_precision_are_those_in_double(objective: Objective):
    given = noised()
    single = Noised(*(v if v.dtype == torch.int64 else v.float() for v in given))
    output = objective.target(SCHEDULE, given.x_0, T, given.eps) + 0.1 * random(9, 100, 2, 3, 3)
    for weighting in (Simple(), SNR(), MinSNR(), P2(), VariationalBound()):
        double = weighting.losses(reading(objective, FixedSmall()), SCHEDULE, given, output)
        found = weighting.losses(reading(objective, FixedSmall()), SCHEDULE, single, output.float())
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), double, atol=1e-4, rtol=2e-3)


def test_only_losses_with_the_bound_train_a_variance():
    trains = {type(w).__name__ for w in (Simple(), SNR(), MinSNR(), P2()) if w.trains_variance}
    assert not trains
    assert VariationalBound.trains_variance
    assert Hybrid.trains_variance


@pytest.mark.parametrize(
    ("make", "settings"),
    [(MinSNR, {"gamma": 0.0}), (P2, {"k": 0.0}), (P2, {"gamma": -1.0}), (Hybrid, {"bound_share": 0})],
)
def test_settings_out_of_range_are_refused(make: type, settings: dict):
    with pytest.raises(ValueError, match=f"weighting.{next(iter(settings))}=".replace(".", r"\.")):
        make(**settings)


def test_uncertainty_learns_how_large_the_error_is_at_each_noise_level():
    """It begins as simple, and is least where exp(u) is the mean error, which makes every level count 1."""
    schedule, t = cosine(50), torch.arange(50)
    x_0 = torch.zeros(50, 1, 2, 2, dtype=torch.float64)
    shown = Noised(x_0, t, torch.zeros_like(x_0), x_0)
    error = torch.exp(-3 + 2 * torch.cos(torch.arange(50) / 15.0)).double()
    output = error.sqrt().view(-1, 1, 1, 1).expand_as(x_0)
    weighting = Uncertainty(12)
    first = weighting.losses(reading(Epsilon()), schedule, shown, output)
    torch.testing.assert_close(first, error)
    optimizer = torch.optim.LBFGS(weighting.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = weighting.losses(reading(Epsilon()), schedule, shown, output).mean()
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(step)
    found = weighting.losses(reading(Epsilon()), schedule, shown, output).detach()
    torch.testing.assert_close(found, 1 + error.log(), atol=0.02, rtol=0)
    assert weighting.log_error(torch.tensor([0.0, 1e-30, 1e30])).isfinite().all()


def test_uncertainty_is_in_full_precision_where_the_network_is_not():
    weighting, snr = Uncertainty(), cosine(50).snr.float()
    with torch.no_grad():
        weighting.coefficients.copy_(torch.linspace(-2, 1.5, 16))
    with torch.autocast("cpu", torch.bfloat16):
        found = weighting.log_error(snr)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, weighting.log_error(snr), rtol=0, atol=0)


def test_an_uncertainty_without_a_function_is_refused():
    with pytest.raises(ValueError, match=r"weighting\.num_cosines=0 must be at least 1"):
        Uncertainty(0)
