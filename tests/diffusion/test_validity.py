"""Combinations without meaning are refused, with the two settings and a way out."""

import pytest

from ddpm.diffusion.guidance import ClassifierFree, NoGuidance
from ddpm.diffusion.objectives import EDM, X0, Epsilon, Flow, PosteriorMean, V
from ddpm.diffusion.samplers import DDIM, Ancestral, DPMSolver, FlowHeun, Heun
from ddpm.diffusion.schedules import constant, cosine, edm, flow, jsd, linear
from ddpm.diffusion.timesteps import LogitNormal, LogNormal, Uniform
from ddpm.diffusion.validity import check_combination, check_request, check_weights
from ddpm.diffusion.variances import FixedLarge, Learned, LearnedRange
from ddpm.diffusion.weighting import SNR, Hybrid, Simple, Uncertainty, VariationalBound

GOOD = {
    "schedule": linear(100),
    "objective": Epsilon(),
    "variance": FixedLarge(),
    "weighting": Simple(),
    "timesteps": Uniform(),
    "sampler": Ancestral(),
    "guidance": NoGuidance(),
    "num_classes": None,
    "label_drop": 0.0,
}
CONDITIONAL = {"guidance": ClassifierFree(2.0), "num_classes": 10, "label_drop": 0.1}
ZERO_SNR = {"schedule": linear(100, zero_terminal_snr=True), "objective": V()}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"schedule": cosine(100), "sampler": Heun(10)},
        {"schedule": flow(100), "objective": Flow(), "timesteps": LogitNormal(), "sampler": FlowHeun(10)},
        {"schedule": edm(100), "objective": EDM(), "timesteps": LogNormal(), "weighting": Uncertainty()},
        {"schedule": cosine(100), "objective": EDM(), "timesteps": LogNormal(), "sampler": Heun(10)},
        {"objective": Flow(), "weighting": SNR()},
        ZERO_SNR,
        {**ZERO_SNR, "objective": X0(), "sampler": DDIM(10)},
        {**ZERO_SNR, "objective": PosteriorMean()},
        {"variance": LearnedRange(), "weighting": Hybrid()},
        {"variance": Learned(), "weighting": VariationalBound()},
        CONDITIONAL,
        {"num_classes": 10},
        {**CONDITIONAL, "guidance": ClassifierFree(1.0), "label_drop": 0.0},
    ],
)
def test_what_makes_sense_is_accepted(parts: dict):
    check_combination(**(GOOD | parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"schedule": flow(100)}, r"objective: Epsilon .* zero SNR; .* objective=flow, .* schedule=cosine"),
        ({"schedule": flow(100), "objective": EDM()}, r"objective: EDM has no meaning .* zero SNR"),
        (
            {"schedule": flow(100), "objective": Flow(), "timesteps": LogNormal()},
            r"timesteps: LogNormal never draws zero SNR.* use timesteps=logit_normal, .* schedule=edm",
        ),
        (
            {"schedule": cosine(100), "timesteps": LogNormal(mean=9.0)},
            r"timesteps.mean=9.0: ln\(sigma\) is -3\.\d+ to .* a mean within, schedule=edm",
        ),
        (
            {"schedule": flow(100), "objective": Flow(), "sampler": Heun(10)},
            r"sampler: Heun .* zero SNR: use sampler=ddim",
        ),
        (
            {"schedule": linear(100, zero_terminal_snr=True)},
            r"objective: Epsilon .* zero SNR; use objective=v",
        ),
        ({"schedule": jsd(100)}, r"objective: Epsilon .* zero SNR"),
        ({"schedule": constant(beta=0.2)}, r"objective: Epsilon .* zero SNR"),  # 1e-97, in float32
        ({**ZERO_SNR, "weighting": SNR()}, r"weighting: SNR gives no weight to zero SNR.* weighting=simple"),
        (
            {"variance": LearnedRange()},
            r"weighting: Simple does not train .* LearnedRange .* weighting=hybrid",
        ),
        ({**ZERO_SNR, "sampler": DPMSolver(10)}, r"sampler: DPMSolver .* zero SNR: use sampler=ddim"),
        ({**ZERO_SNR, "sampler": Heun(10)}, r"sampler: Heun .* zero SNR"),
        ({"sampler": DDIM(101)}, r"sampler\.num_steps=101: .* 1 to 100 steps"),
        ({"sampler": Ancestral(timesteps=[5, 100])}, r"sampler\.timesteps=.*0 to 99"),
        (
            {"guidance": ClassifierFree(2.0)},
            r"guidance: there is no class .* guidance=none, or .*conditional=true",
        ),
        ({**CONDITIONAL, "label_drop": 0.0}, r"guidance: .* data\.label_drop=0 .* guidance=none"),
        ({"label_drop": 0.1}, r"data\.label_drop=0\.1: .* conditional=true"),
        (
            {**CONDITIONAL, "guidance": ClassifierFree(2.0, interval=[0, 100])},
            r"guidance\.interval=\[0, 100\]: t is 0 to 99",
        ),
    ],
)
def test_what_does_not_is_refused(parts: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_combination(**(GOOD | parts))


REQUEST = {
    "schedule": linear(100),
    "sampler": Ancestral(),
    "guidance": NoGuidance(),
    "image_size": (8, 8),
}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"start_t": 0},
        {"start_t": 99},
        {"labels": [0, 9, -1], "num_classes": 10},
        {"num_classes": 10},
        {"mask_size": (8, 8)},
        {"sampler": Ancestral(timesteps=[0, 50, 99])},
        {"sampler": Ancestral(10, spacing="leading")},
        {"sampler": DDIM(spacing="ddim50")},
        {"sampler": DDIM(spacing=[10, 1])},
        {"sampler": Ancestral(timesteps=[0, 10, 50]), "start_t": 50},
    ],
)
def test_a_request_that_can_be_met_is_accepted(parts: dict):
    check_request(**(REQUEST | parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"start_t": 100}, r"start_t=100: .* to 99 with schedule\.num_timesteps=100"),
        ({"start_t": -1}, r"start_t=-1: "),
        ({"start_t": 20, "sampler": DDIM(50)}, r"sampler\.num_steps=50: from t = 20 .* 1 to 21 steps"),
        ({"labels": [3]}, r"labels=\[3\]: .* without classes"),
        (
            {"labels": [3, 10], "num_classes": 10},
            r"labels=\[3, 10\]: there is no class 10; classes are 0 to 9",
        ),
        ({"labels": [-2], "num_classes": 10}, r"no class -2"),
        ({"sampler": Ancestral(timesteps=[0, 50])}, r"sampler\.timesteps ends at 50, .* t = 99"),
        ({"sampler": DDIM(spacing="leading", timesteps=[0, 50])}, r"sampler\.timesteps ends at 50"),
        ({"guidance": ClassifierFree(2.0)}, r"guidance: there is no class"),
        ({"mask_size": (8, 9)}, r"mask: is 8x9 .* 8x8"),
        (
            {"start_t": 99, "sampler": Heun(10), "schedule": linear(100, zero_terminal_snr=True)},
            r"sampler: Heun",
        ),
    ],
)
def test_a_request_that_cannot_is_refused(parts: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_request(**(REQUEST | parts))


def test_weights_fit_a_network_of_the_same_outputs_and_classes():
    own = {"variance": LearnedRange(), "num_classes": 10}
    check_weights(**own, their_variance=Learned(), their_num_classes=10)
    with pytest.raises(ValueError, match=r"variance: LearnedRange needs 1 outputs .* FixedLarge, has 0; .*"):
        check_weights(**own, their_variance=FixedLarge(), their_num_classes=10)
    with pytest.raises(ValueError, match=r"conditional: .* takes 10 classes, .* none; use conditional=false"):
        check_weights(**own, their_variance=LearnedRange(), their_num_classes=None)
