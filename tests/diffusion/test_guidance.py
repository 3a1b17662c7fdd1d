"""Guidance: what it asks the network, what it makes of the outputs, and that no objective matters."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, predict_eps
from ddpm.diffusion.guidance import SHAPES, Autoguidance, ClassifierFree, Guidance, NoGuidance
from ddpm.diffusion.objectives import X0, Epsilon, Objective, PosteriorMean, V
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.variances import FixedSmall, LearnedRange

SCHEDULE = linear(100)
LABELS = torch.tensor([2, 0, 1])
X_T = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.tensor([10, 50, 99])


def x_0_of(labels: Tensor | None) -> Tensor:
    """What a made-up network takes for x_0, with and without the class."""
    shift = 0.0 if labels is None else labels.double().view(-1, 1, 1, 1) - 0.7
    return torch.tanh(X_T + shift)


class Asked:
    """A network of any objective whose x_0 is `x_0_of`, and counts how often it was asked."""

    def __init__(self, schedule: NoiseSchedule, objective: Objective, variance_outputs: int = 0):
        self.schedule = schedule
        self.objective = objective
        self.variance_outputs = variance_outputs
        self.labels: list[Tensor | None] = []

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.labels.append(labels)
        x_0 = x_0_of(labels)
        output = self.objective.target(self.schedule, x_0, t, predict_eps(self.schedule, x_t, t, x_0))
        variance = [torch.full_like(x_t, -0.5 if labels is None else 0.25)] * self.variance_outputs
        return torch.cat([output, *variance], dim=1)


def predicted(guidance: Guidance, objective: Objective | None = None, *, clip: bool = False) -> Tensor:
    network = Asked(SCHEDULE, objective or Epsilon())
    denoiser = Denoiser(
        network, Parametrization(network.objective, FixedSmall()), clip=clip, labels=LABELS, guidance=guidance
    )
    return denoiser(SCHEDULE, X_T, T).x_0


def test_the_scale_leads_from_no_class_to_beyond_the_class():
    without, with_ = x_0_of(None), x_0_of(LABELS)
    for scale in (0.0, 1.0, 3.5):
        torch.testing.assert_close(predicted(ClassifierFree(scale)), without + scale * (with_ - without))
    torch.testing.assert_close(predicted(NoGuidance()), with_)


@pytest.mark.parametrize("objective", [X0(), V(), PosteriorMean()])
def test_the_images_are_the_same_whatever_the_network_predicts(objective: Objective):
    torch.testing.assert_close(
        predicted(ClassifierFree(4.0), objective), predicted(ClassifierFree(4.0)), rtol=0, atol=1e-9
    )


def test_clipping_comes_after_guidance():
    clipped = predicted(ClassifierFree(6.0), clip=True)
    torch.testing.assert_close(clipped, predicted(ClassifierFree(6.0)).clamp(-1, 1))
    assert (predicted(ClassifierFree(6.0)).abs() > 1).any()
    torch.testing.assert_close(
        predicted(ClassifierFree(6.0), clip=0.5), predicted(ClassifierFree(6.0)).clamp(-0.5, 0.5)
    )


@pytest.mark.parametrize(
    ("guidance", "labels", "asked"),
    [
        (NoGuidance(), LABELS, 1),
        (ClassifierFree(1.0), LABELS, 1),
        (ClassifierFree(2.0), None, 1),
        (ClassifierFree(2.0), LABELS, 2),
        (ClassifierFree(2.0, interval=[11, 49]), LABELS, 1),
        (ClassifierFree(2.0, interval=[11, 50]), LABELS, 2),
    ],
)
def test_the_network_is_asked_no_more_than_needed(guidance: Guidance, labels: Tensor | None, asked: int):
    network = Asked(SCHEDULE, Epsilon())
    Denoiser(network, Parametrization(Epsilon(), FixedSmall()), labels=labels, guidance=guidance)(
        SCHEDULE, X_T, T
    )
    assert len(network.labels) == asked
    assert network.labels[0] is labels


def test_the_interval_holds_for_each_image_and_both_its_ends():
    without, with_ = x_0_of(None), x_0_of(LABELS)
    guided = without + 3 * (with_ - without)
    found = predicted(ClassifierFree(3.0, interval=[10, 50]))
    torch.testing.assert_close(found, torch.cat([guided[:2], with_[2:]]))


def test_the_interval_is_of_the_timesteps_that_the_network_was_trained_on():
    chain = SCHEDULE.respaced([10, 50, 99])
    network = Asked(SCHEDULE, Epsilon())
    denoiser = Denoiser(
        network,
        Parametrization(Epsilon(), FixedSmall()),
        labels=LABELS,
        guidance=ClassifierFree(3.0, interval=[60, 99]),
    )
    denoiser(chain, X_T, torch.full((3,), 1))
    assert len(network.labels) == 1
    denoiser(chain, X_T, torch.full((3,), 2))
    assert len(network.labels) == 3


def test_rescaling_brings_back_the_spread_of_the_output_with_the_class():
    def output(labels: Tensor | None) -> Tensor:
        return (X_T if labels is None else 2 * X_T.roll(1, -1) + labels.view(-1, 1, 1, 1)).clone()

    def spread(output: Tensor) -> Tensor:
        return output.flatten(1).std(1)

    conditional = output(LABELS)
    plain = ClassifierFree(5.0)(output, X_T, T, LABELS, 100)
    whole = ClassifierFree(5.0, rescale=1.0)(output, X_T, T, LABELS, 100)
    half = ClassifierFree(5.0, rescale=0.5)(output, X_T, T, LABELS, 100)
    assert (spread(plain) > 1.5 * spread(conditional)).all()
    torch.testing.assert_close(spread(whole), spread(conditional))
    torch.testing.assert_close(half, (plain + whole) / 2)


def test_an_output_without_spread_is_not_rescaled():
    def output(labels: Tensor | None) -> Tensor:
        return torch.zeros_like(X_T)

    assert torch.equal(ClassifierFree(5.0, rescale=0.7)(output, X_T, T, LABELS, 100), torch.zeros_like(X_T))


def test_a_learned_variance_is_that_of_the_output_with_the_class():
    network = Asked(SCHEDULE, Epsilon(), variance_outputs=1)
    found = [
        Denoiser(network, Parametrization(Epsilon(), LearnedRange()), labels=LABELS, guidance=guidance)(
            SCHEDULE, X_T, T
        )
        for guidance in (NoGuidance(), ClassifierFree(3.0))
    ]
    assert torch.equal(found[0].log_variance, found[1].log_variance)
    assert not torch.equal(found[0].x_0, found[1].x_0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": -1.0}, r"guidance\.scale=-1\.0"),
        ({"scale": float("nan")}, r"guidance\.scale=nan"),
        ({"scale": "two"}, r"guidance\.scale=two"),
        ({"interval": [0.2, 0.8]}, r"guidance\.interval=\[0\.2, 0\.8\]"),
        ({"rescale": 1.5}, r"guidance\.rescale=1\.5"),
        ({"interval": [50, 10]}, r"guidance\.interval=\[50, 10\]"),
        ({"interval": [50]}, r"guidance\.interval=\[50\]"),
        ({"shape": "sine"}, r"guidance\.shape=sine must be constant or linear or cosine"),
        ({"shape": "linear", "scale": 0.5}, r"guidance\.scale=0\.5: guidance\.shape=linear"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        ClassifierFree(**settings)
    with pytest.raises(ValueError, match=message):
        Autoguidance("run", **settings)


# A scale that varies over t


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_spreads_the_scale_and_never_adds_to_it(shape: str):
    t = torch.arange(100)
    scale = torch.as_tensor(ClassifierFree(3.0, shape=shape).scale_at(t, 100)).expand(100, 1, 1, 1).flatten()
    assert scale.mean().item() == pytest.approx(3.0)
    assert (scale.diff() <= 1e-12).all()
    if shape != "constant":
        assert (scale[0].item(), scale[-1].item()) == pytest.approx((5.0, 1.0))


def test_a_shape_goes_with_an_interval_and_rescaling():
    """Each image has the scale of its own t; the ends of the chain are those that training knew."""

    def output(labels: Tensor | None) -> Tensor:
        return X_T.clone() if labels is None else 2 * X_T.roll(1, -1)

    chain = SCHEDULE.respaced([10, 50, 99])
    found = []
    for shape, scale in (("linear", 3.0), ("constant", 1 + 2 * 2 * (1 - 50 / 99))):
        guidance = ClassifierFree(scale, shape=shape, interval=[40, 60], rescale=0.5)
        found.append(guidance(output, X_T, T, LABELS, chain.original.num_timesteps))
    torch.testing.assert_close(found[0], found[1])
    assert torch.equal(found[0][[0, 2]], output(LABELS)[[0, 2]])
    assert not torch.equal(found[0][1], output(LABELS)[1])


# A worse network as guide


class Gaussian:
    """The best epsilon for data of N(mean, deviation^2) in each pixel, and counts its uses."""

    def __init__(self, mean: float, deviation: float):
        self.mean, self.deviation, self.uses = mean, deviation, 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.uses += 1
        signal, noise = self.score_terms(t)
        return noise.sqrt() * (x_t - signal * self.mean) / (signal**2 * self.deviation**2 + noise)

    def score_terms(self, t: Tensor) -> tuple[Tensor, Tensor]:
        abar = SCHEDULE.alphas_cumprod[t].view(-1, 1, 1, 1)
        return abar.sqrt(), 1 - abar

    def log_density(self, x_t: Tensor, t: Tensor) -> Tensor:
        signal, noise = self.score_terms(t)
        return -0.5 * (x_t - signal * self.mean) ** 2 / (signal**2 * self.deviation**2 + noise)


def autoguided(main: Gaussian, guide: Gaussian, **settings: object) -> Tensor:
    guidance = Autoguidance("run", **settings)
    guidance.guide = guide
    denoiser = Denoiser(main, Parametrization(Epsilon(), FixedSmall()), clip=False, guidance=guidance)
    return denoiser(SCHEDULE, X_T, T).eps


def test_autoguidance_follows_the_score_of_the_ratio_of_two_densities():
    """p_guide (p / p_guide)^w, of two Gaussians (Karras et al. 2024, eq. 3)."""
    main, guide = Gaussian(0.3, 0.4), Gaussian(0.1, 0.7)
    x_t = X_T.clone().requires_grad_()
    log_density = guide.log_density(x_t, T) + 2.5 * (main.log_density(x_t, T) - guide.log_density(x_t, T))
    (score,) = torch.autograd.grad(log_density.sum(), x_t)
    expected = -score * main.score_terms(T)[1].sqrt()
    torch.testing.assert_close(autoguided(main, guide, scale=2.5), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(autoguided(main, guide, scale=0.0), guide(X_T, T))


def test_a_scale_of_one_is_no_guidance_to_the_bit():
    main, guide = Gaussian(0.3, 0.4), Gaussian(0.1, 0.7)
    denoiser = Denoiser(main, Parametrization(Epsilon(), FixedSmall()), clip=False)
    assert torch.equal(autoguided(main, guide, scale=1.0), denoiser(SCHEDULE, X_T, T).eps)
    assert guide.uses == 0


@pytest.mark.parametrize(("interval", "uses"), [([11, 49], 0), ([11, 50], 1), (None, 1)])
def test_the_guide_is_asked_within_the_interval_alone(interval: list[int] | None, uses: int):
    main, guide = Gaussian(0.3, 0.4), Gaussian(0.1, 0.7)
    autoguided(main, guide, interval=interval)
    assert (main.uses, guide.uses) == (1, uses)


def test_a_guide_that_was_not_loaded_is_told():
    with pytest.raises(ValueError, match=r"guidance\.ckpt=run: the guide is not loaded"):
        Autoguidance("run")(lambda labels: X_T, X_T, T, None, 100)
