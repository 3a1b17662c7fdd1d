"""The bound on Gaussian data, whose optimal denoiser is known: every term against its closed form.

Nothing is drawn: images of one value, their levels and the noise are the nodes of a quadrature, which is
exact for the terms between Gaussians. Where x_0 has 256 levels it is summed over all of them.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, q_posterior_mean
from ddpm.diffusion.decoder import discretized_log_likelihood
from ddpm.diffusion.likelihood import (
    Bound,
    bound,
    prior_term,
    rate_distortion,
    some_steps,
)
from ddpm.diffusion.objectives import X0, Epsilon, Objective, PosteriorMean, V
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance

DEVIATION = 0.2
"""Of the data, whose mean is MEAN."""
MEAN = 0.1
LEVELS = np.arange(256) / 127.5 - 1
OBJECTIVES = {"epsilon": Epsilon(), "x_0": X0(), "v": V(), "mean": PosteriorMean()}
VARIANCES = {"large": FixedLarge(), "small": FixedSmall(), "learned": Learned(), "range": LearnedRange()}
MIXTURE = 0.3
"""What the network puts out for a range; as a log-variance it is taken from `exact_variance`."""


def cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def level_probabilities() -> np.ndarray:
    edges = [-math.inf, *((LEVELS[1:] + LEVELS[:-1]) / 2), math.inf]
    below = np.array([cdf((edge - MEAN) / DEVIATION) for edge in edges])
    return np.diff(below)


def quadrature(levels: bool, nodes: int = 12) -> tuple[Tensor, Tensor, Tensor]:
    """(x_0, eps, weights), each [N]."""
    eps, eps_weights = np.polynomial.hermite_e.hermegauss(nodes)
    eps_weights = eps_weights / eps_weights.sum()
    x_0, x_0_weights = (LEVELS, level_probabilities()) if levels else (MEAN + DEVIATION * eps, eps_weights)
    grid = [torch.from_numpy(values.ravel().copy()) for values in np.meshgrid(x_0, eps)]
    return *grid, torch.from_numpy(np.outer(eps_weights, x_0_weights).ravel())


def remaining(schedule: NoiseSchedule) -> Tensor:
    """Variance of x_0 given x_t: [T]."""
    alpha_bar = schedule.alphas_cumprod
    return DEVIATION**2 * (1 - alpha_bar) / (alpha_bar * DEVIATION**2 + 1 - alpha_bar)


def exact_variance(schedule: NoiseSchedule) -> Tensor:
    """Of x_{t-1} given x_t, without knowing x_0: [T]."""
    alpha_bar, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    beta = 1 - alpha_bar / before
    prior = before * DEVIATION**2 + 1 - before
    return 1 / (1 / prior + (1 - beta) / beta)


def network_for(schedule: NoiseSchedule, objective: Objective, variance: Variance):
    """The optimal denoiser, as a network that puts out what the objective asks for."""

    def network(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
        gain = alpha_bar.sqrt() * DEVIATION**2 / (alpha_bar * DEVIATION**2 + 1 - alpha_bar)
        x_0 = MEAN + gain * (x_t - alpha_bar.sqrt() * MEAN)
        eps = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
        outputs = {
            "Epsilon": eps,
            "X0": x_0,
            "V": alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0,
            "PosteriorMean": q_posterior_mean(schedule, x_0, x_t, t),
        }
        output = outputs[type(objective).__name__]
        if not variance.outputs:
            return output
        exact = exact_variance(schedule)[t].log().view(-1, 1, 1, 1).expand_as(x_t)
        second = exact if type(variance) is Learned else torch.full_like(x_t, MIXTURE)
        return torch.cat([output, second], dim=1)

    return network


def log_variances(schedule: NoiseSchedule, name: str) -> Tensor:
    """Of the reverse step, [T], in other words than the variances' own."""
    alpha_bar, before = schedule.alphas_cumprod, schedule.alphas_cumprod_prev
    beta = 1 - alpha_bar / before
    small = beta * (1 - before) / (1 - alpha_bar)
    small[0] = small[1]
    large = beta.clone()
    large[0] = small[0]
    share = (MIXTURE + 1) / 2
    return {
        "large": large,
        "small": small,
        "learned": exact_variance(schedule),
        "range": small ** (1 - share) * beta**share,
    }[name].log()


def computed(schedule: NoiseSchedule, objective: Objective, variance: Variance, *, levels: bool) -> Bound:
    """The bound's terms, mean over the data: each field's last dimension is gone."""
    x_0, eps, weights = quadrature(levels)
    x_0, eps = x_0.view(-1, 1, 1, 1), eps.view(-1, 1, 1, 1)
    denoiser = Denoiser(
        network_for(schedule, objective, variance), Parametrization(objective, variance), clip=False
    )
    found = bound(denoiser, schedule, x_0, noise=lambda index, like: eps)
    return Bound(*(field.double() @ weights for field in found))


SCHEDULES = {"linear": linear(60), "cosine": cosine(50)}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("variance", VARIANCES)
def test_every_term_has_its_closed_form(schedule: str, objective: str, variance: str):
    chain = SCHEDULES[schedule]
    found = computed(chain, OBJECTIVES[objective], VARIANCES[variance], levels=False)
    alpha_bar, before = chain.alphas_cumprod, chain.alphas_cumprod_prev
    beta = 1 - alpha_bar / before
    posterior = beta * (1 - before) / (1 - alpha_bar)
    log_p = log_variances(chain, variance)
    coefficient = before.sqrt() * beta / (1 - alpha_bar)
    error = coefficient**2 * remaining(chain)
    terms = (log_p - posterior.log() + (posterior + error) / log_p.exp() - 1)[1:] / (2 * math.log(2))
    torch.testing.assert_close(found.terms, terms, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.squared_error, remaining(chain), atol=1e-9, rtol=0)
    last = float(alpha_bar[-1])
    prior = (last * (DEVIATION**2 + MEAN**2) - last - math.log(1 - last)) / (2 * math.log(2))
    assert float(found.prior) == pytest.approx(prior, abs=1e-9)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_decoders_term_is_that_of_256_levels(objective: str, variance: str):
    """Against a sum over the levels and an integral over x_1, by the error function."""
    chain = SCHEDULES["linear"]
    found = computed(chain, OBJECTIVES[objective], VARIANCES[variance], levels=True)
    alpha_bar = float(chain.alphas_cumprod[0])
    deviation = math.exp(float(log_variances(chain, variance)[0]) / 2)
    gain = math.sqrt(alpha_bar) * DEVIATION**2 / (alpha_bar * DEVIATION**2 + 1 - alpha_bar)
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    expected = 0.0
    for k, probability in enumerate(level_probabilities()):
        for eps, weight in zip(nodes, weights / weights.sum(), strict=True):
            x_1 = math.sqrt(alpha_bar) * LEVELS[k] + math.sqrt(1 - alpha_bar) * eps
            mean = MEAN + gain * (x_1 - math.sqrt(alpha_bar) * MEAN)
            upper = 1.0 if k == 255 else cdf((LEVELS[k] + 1 / 255 - mean) / deviation)
            lower = 0.0 if k == 0 else cdf((LEVELS[k] - 1 / 255 - mean) / deviation)
            expected -= probability * weight * math.log2(max(upper - lower, 1e-300))
    assert float(found.decoder) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_with_the_exact_variance_the_bound_is_the_entropy(objective: str):
    chain = linear(100)
    found = computed(chain, OBJECTIVES[objective], Learned(), levels=True)
    probabilities = level_probabilities()
    entropy = -float((probabilities * np.log2(probabilities)).sum())
    assert float(found.total) == pytest.approx(entropy, abs=1e-3)
    for other in (FixedLarge(), FixedSmall()):
        loose = computed(chain, OBJECTIVES[objective], other, levels=True)
        assert float(loose.total) > entropy + 0.01


@pytest.mark.parametrize("schedule", [linear(60), cosine(60, zero_terminal_snr=True)])
def test_a_shortened_chain_has_a_bound_of_its_own(schedule: NoiseSchedule):
    """Its exact variance makes it the entropy again, whatever the network was trained on."""
    short = schedule.respaced([0, 2, 5, 11, 24, 40, 59])
    x_0, eps, weights = (v.view(-1, 1, 1, 1) for v in quadrature(levels=True))
    network = network_for(schedule, PosteriorMean(), FixedLarge())
    exact = exact_variance(short).log()

    def with_variance(x_t: Tensor, t: Tensor) -> Tensor:
        place = torch.searchsorted(short.timesteps, t)
        return torch.cat([network(x_t, t), exact[place].view(-1, 1, 1, 1)], dim=1)

    denoiser = Denoiser(with_variance, Parametrization(PosteriorMean(), Learned()), clip=False)
    found = bound(denoiser, short, x_0, noise=lambda index, like: eps)
    probabilities = level_probabilities()
    entropy = -float((probabilities * np.log2(probabilities)).sum())
    assert float(found.total @ weights.flatten()) == pytest.approx(entropy, abs=1e-3)


def test_the_probabilities_of_all_levels_sum_to_one():
    levels = torch.from_numpy(LEVELS)[:, None]
    mean = torch.tensor([-3.0, -1.0, 0.0013, 0.5, 1.2], dtype=torch.float64)
    for log_variance in (-12.0, -4.0, 0.0, 4.0):
        for dtype, close in ((torch.float64, 1e-9), (torch.float32, 3e-4)):
            log_p = discretized_log_likelihood(
                levels.to(dtype), mean.to(dtype), torch.tensor(log_variance).to(dtype)
            )
            assert torch.isfinite(log_p).all()
            torch.testing.assert_close(log_p.exp().sum(0), torch.ones(5, dtype=dtype), atol=close, rtol=0)


def test_far_from_the_level_the_likelihood_keeps_its_digits_and_a_gradient():
    mean = torch.tensor([0.9, -0.9], requires_grad=True)
    x_0 = torch.tensor([-0.2, 0.2])
    log_p = discretized_log_likelihood(x_0, mean, torch.tensor(-8.0))
    # 1.1 away with deviation 1/55: the nearer edge of the level, 60 deviations out
    edge = (1.1 - 1 / 255) * math.exp(4)
    expected = -(edge**2) / 2 - math.log(edge * math.sqrt(2 * math.pi))
    assert log_p.tolist() == pytest.approx([expected] * 2, rel=1e-3)
    log_p.sum().backward()
    assert torch.isfinite(mean.grad).all()
    assert float(mean.grad[0]) < -1000
    assert float(mean.grad[1]) > 1000


def test_the_prior_of_a_chain_that_ends_in_noise_is_nothing():
    x_0 = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    assert prior_term(cosine(50, zero_terminal_snr=True), x_0).tolist() == [0, 0, 0]


def images_and_bound(schedule: NoiseSchedule, steps: Tensor | None = None, batch: int = 6) -> Bound:
    generator = torch.Generator().manual_seed(3)
    x_0 = torch.randn(batch, 1, 2, 2, generator=generator, dtype=torch.float64) * DEVIATION + MEAN
    network = network_for(schedule.original, Epsilon(), FixedLarge())

    def noise(index: int, like: Tensor) -> Tensor:
        """The same at every step, so that a term is a function of its step alone."""
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(7), dtype=like.dtype)

    return bound(
        Denoiser(network, Parametrization(Epsilon(), FixedLarge())), schedule, x_0, noise=noise, steps=steps
    )


def test_some_steps_are_different_and_each_as_likely():
    u = torch.rand(19, 20_000, generator=torch.Generator().manual_seed(0))
    steps = some_steps(u, 5)
    assert steps.shape == (5, 20_000)
    assert (steps.sort(0).values.diff(dim=0) > 0).all()
    counts = torch.bincount(steps.flatten(), minlength=20)[1:] / 100_000 * 19
    assert int(steps.min()) == 1
    assert int(steps.max()) == 19
    assert float((counts - 1).abs().max()) < 0.06
    for count in (0, 20):
        with pytest.raises(ValueError, match="has 1 to 19"):
            some_steps(u, count)


def test_an_estimate_from_some_steps_is_unbiased_and_knows_its_error():
    """Over all pairs of steps of a chain: their mean is the bound, and the mean squared error the variance
    that was estimated.
    """
    schedule = linear(40).respaced([0, 5, 12, 20, 31, 39])
    whole = images_and_bound(schedule)
    assert whole.standard_error.tolist() == [0] * 6
    torch.testing.assert_close(whole.total, whole.prior + whole.terms.sum(0) + whole.decoder)
    pairs = [(a, b) for a in range(1, 6) for b in range(a + 1, 6)]
    found = [images_and_bound(schedule, torch.tensor(pair)[:, None].expand(-1, 6)) for pair in pairs]
    totals = torch.stack([each.total for each in found])
    torch.testing.assert_close(totals.mean(0), whole.total)
    variances = torch.stack([each.standard_error.square() for each in found])
    torch.testing.assert_close(variances.mean(0), (totals - whole.total).square().mean(0))
    assert images_and_bound(schedule, torch.full((1, 6), 3)).standard_error.isnan().all()


def test_rate_falls_from_the_bound_to_the_prior_as_distortion_grows():
    whole = images_and_bound(linear(40))
    rate, distortion = rate_distortion(whole)
    assert rate.shape == distortion.shape == (40,)
    assert float(rate[-1]) == pytest.approx(float(whole.prior.mean()))
    assert float(rate[0]) == pytest.approx(float((whole.total - whole.decoder).mean()))
    assert float(rate[30]) == pytest.approx(float((whole.prior + whole.terms[30:].sum(0)).mean()))
    assert (rate.diff() < 0).all()
    assert float(distortion[7]) == pytest.approx(127.5 * float(whole.squared_error[7].mean()) ** 0.5)
    with pytest.raises(ValueError, match="all steps"):
        rate_distortion(images_and_bound(linear(40), torch.tensor([[3], [9]]).expand(-1, 6)))


def test_a_chain_of_one_step_has_no_terms_in_between():
    found = images_and_bound(linear(40).respaced([39]))
    assert found.terms.shape == (0, 6)
    torch.testing.assert_close(found.total, found.prior + found.decoder)
    with pytest.raises(ValueError, match="one step or more"):
        images_and_bound(linear(40), torch.zeros(0, 6, dtype=torch.int64))
