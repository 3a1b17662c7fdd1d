"""Combinations without meaning are refused, with the two settings and a way out."""

import pytest

from ddpm.diffusion.objectives import X0, Epsilon, PosteriorMean, V
from ddpm.diffusion.samplers import DDIM, Ancestral, DPMSolver, Heun
from ddpm.diffusion.schedules import cosine, jsd, linear
from ddpm.diffusion.validity import check_combination
from ddpm.diffusion.variances import FixedLarge, Learned, LearnedRange
from ddpm.diffusion.weighting import Hybrid, Simple, VariationalBound

GOOD = {
    "schedule": linear(100),
    "objective": Epsilon(),
    "variance": FixedLarge(),
    "weighting": Simple(),
    "sampler": Ancestral(),
}
ZERO_SNR = {"schedule": linear(100, zero_terminal_snr=True), "objective": V()}


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"schedule": cosine(100), "sampler": Heun(10)},
        ZERO_SNR,
        {**ZERO_SNR, "objective": X0(), "sampler": DDIM(10)},
        {**ZERO_SNR, "objective": PosteriorMean()},
        {"variance": LearnedRange(), "weighting": Hybrid()},
        {"variance": Learned(), "weighting": VariationalBound()},
    ],
)
def test_what_makes_sense_is_accepted(parts: dict):
    check_combination(**(GOOD | parts))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"schedule": linear(100, zero_terminal_snr=True)},
            r"objective: Epsilon .* zero SNR; use objective=v",
        ),
        ({"schedule": jsd(100)}, r"objective: Epsilon .* zero SNR"),
        (
            {"variance": LearnedRange()},
            r"weighting: Simple does not train .* LearnedRange .* weighting=hybrid",
        ),
        ({**ZERO_SNR, "sampler": DPMSolver(10)}, r"sampler=dpm_solver .* zero SNR: use sampler=ddim"),
        ({**ZERO_SNR, "sampler": Heun(10)}, r"sampler=heun .* zero SNR"),
        ({"sampler": DDIM(101)}, r"sampler\.num_steps=101: .* 1 to 100 steps"),
        ({"sampler": Ancestral(timesteps=[5, 100])}, r"sampler\.timesteps=.*0 to 99"),
    ],
)
def test_what_does_not_is_refused(parts: dict, message: str):
    with pytest.raises(ValueError, match=message):
        check_combination(**(GOOD | parts))
