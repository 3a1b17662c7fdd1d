"""Schedules against their formulas, written here a second time and in other words."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.schedules import (
    constant,
    cosine,
    edm,
    flow,
    from_file,
    jsd,
    laplace,
    linear,
    quadratic,
    scaled_linear,
    sigmoid,
)


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


def quadratic_betas(num_timesteps: int, start: float, end: float) -> list[float]:
    roots = [
        math.sqrt(start) + (math.sqrt(end) - math.sqrt(start)) * t / (num_timesteps - 1)
        for t in range(num_timesteps)
    ]
    return [1000 / num_timesteps * root * root for root in roots]


def from_alpha_bar(alpha_bar: Callable[[float], float], num_timesteps: int) -> list[float]:
    points = [alpha_bar(step / num_timesteps) for step in range(num_timesteps + 1)]
    return [min(1 - after / before, 0.999) for before, after in pairwise(points)]


def sigmoid_alpha_bar(u: float) -> float:
    def s(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    return (s(3) - s(6 * u - 3)) / (s(3) - s(-3))


def laplace_alpha_bar(u: float) -> float:
    """SNR is (2 u)^-b in the first half, and (2 (1 - u))^b in the second."""
    if u == 0:
        return 1.0
    snr = (2 * u) ** -0.5 if u < 0.5 else (2 * (1 - u)) ** 0.5
    return snr / (1 + snr)


@pytest.mark.parametrize("num_timesteps", [25, 1000])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (quadratic, lambda n: quadratic_betas(n, 1e-4, 0.02)),
        (scaled_linear, lambda n: quadratic_betas(n, 0.00085, 0.012)),
        (constant, lambda n: [0.01 * 1000 / n] * n),
        (jsd, lambda n: [1 / (n - t) for t in range(n)]),
        (sigmoid, lambda n: from_alpha_bar(sigmoid_alpha_bar, n)),
        (laplace, lambda n: from_alpha_bar(laplace_alpha_bar, n)),
    ],
)
def test_a_schedule_follows_its_formula(
    make: Callable[..., NoiseSchedule], expected: Callable[[int], list[float]], num_timesteps: int
):
    schedule = make(num_timesteps)
    betas = expected(num_timesteps)
    alpha_bar = 1.0
    for t in range(num_timesteps):
        alpha_bar *= 1 - betas[t]
        assert abs(float(schedule.betas[t]) - betas[t]) < 1e-10
        assert abs(float(schedule.alphas_cumprod[t]) - alpha_bar) < 1e-10


EVERY = [linear, quadratic, scaled_linear, constant, jsd, cosine, sigmoid, laplace]


@pytest.mark.parametrize("make", EVERY)
@pytest.mark.parametrize("num_timesteps", [50, 1000])
def test_zero_terminal_snr_shifts_and_stretches_the_root_of_alpha_bar(
    make: Callable[..., NoiseSchedule], num_timesteps: int
):
    before, after = make(num_timesteps), make(num_timesteps, zero_terminal_snr=True)
    assert float(after.snr[-1]) == 0
    assert float(after.betas[-1]) == 1
    roots = [math.sqrt(value) for value in before.alphas_cumprod.tolist()]
    for t, root in enumerate(roots):
        expected = roots[0] * (root - roots[-1]) / (roots[0] - roots[-1])
        assert abs(float(after.alphas_cumprod[t]) - expected**2) < 1e-10


def test_zero_terminal_snr_agrees_with_diffusers():
    theirs = DDPMScheduler(trained_betas=linear().betas.numpy(), rescale_betas_zero_snr=True)
    ours = linear(zero_terminal_snr=True)
    assert torch.allclose(ours.betas[:-1], theirs.betas[:-1].double(), atol=1e-4)


def test_zero_terminal_snr_of_one_step_is_refused_unless_it_is_there():
    with pytest.raises(ValueError, match="2 steps or more"):
        cosine(1, zero_terminal_snr=True)
    assert float(jsd(1, zero_terminal_snr=True).snr[0]) == 0


@pytest.mark.parametrize("make", [linear, quadratic, scaled_linear, constant])
def test_a_chain_so_short_that_beta_reaches_one_is_refused(make: Callable[..., NoiseSchedule]):
    with pytest.raises(
        ValueError, match=r"num_timesteps=5: the last beta would be \d+.*use \d+ steps or more"
    ):
        make(5)
    with pytest.raises(ValueError, match="num_timesteps=0"):
        make(0)


@pytest.mark.parametrize(("make", "arguments"), [(sigmoid, {"start": 3.0}), (laplace, {"scale": 0.0})])
def test_settings_that_give_no_schedule_are_refused(make: Callable[..., NoiseSchedule], arguments: dict):
    with pytest.raises(ValueError, match=f"schedule.{next(iter(arguments))}"):
        make(**arguments)


@pytest.mark.parametrize("name", ["betas.npy", "betas.csv", "betas.txt"])
def test_betas_come_from_a_file(tmp_path: Path, name: str):
    path, betas = tmp_path / name, [0.1, 0.2, 0.30000000001]
    if name.endswith("npy"):
        np.save(path, np.array(betas))
    else:
        path.write_text("# mine\n" + (", " if name.endswith("csv") else "\n").join(map(str, betas)) + "\n")
    assert from_file(str(path)).betas.tolist() == betas
    assert float(from_file(str(path), zero_terminal_snr=True).snr[-1]) == 0


@pytest.mark.parametrize("content", [None, "", "0.1 x", "0.1 1.5", "0.1 1.0 0.1"])
def test_a_file_without_betas_is_named(tmp_path: Path, content: str | None):
    path = tmp_path / "betas.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"schedule.path=.*betas.txt: "):
        from_file(str(path))


@pytest.mark.parametrize("make", [cosine, linear, laplace, edm, flow, jsd])
def test_a_shift_divides_the_snr_by_its_square(make: Callable[..., NoiseSchedule]):
    """Hoogeboom et al. 2023: log SNR + 2 log(reference / resolution)."""
    plain, shifted = make(100).snr, make(100, shift=4.0).snr
    torch.testing.assert_close(shifted, plain / 16, rtol=1e-8, atol=0)
    at_its_end = make(100, shift=4.0, zero_terminal_snr=True)
    assert float(at_its_end.snr[-1]) == 0
    torch.testing.assert_close(at_its_end.snr[:1], shifted[:1], rtol=1e-8, atol=0)


def test_flow_is_a_straight_line_that_a_shift_bends():
    for shift in (1.0, 3.0):
        schedule = flow(10, shift=shift)
        for i in range(10):
            u = (i + 1) / 10
            u = shift * u / (1 + (shift - 1) * u)
            expected = (1 - u) ** 2 / ((1 - u) ** 2 + u**2)
            assert float(schedule.alphas_cumprod[i]) == pytest.approx(expected, abs=1e-12)
        assert float(schedule.betas[-1]) == 1


def test_edm_visits_its_noise_levels():
    schedule = edm(18)
    for i in range(18):
        sigma = (80 ** (1 / 7) + (17 - i) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert float(schedule.snr[i]) == pytest.approx(sigma**-2, rel=1e-9)
    assert float(edm(1).snr[0]) == pytest.approx(80**-2, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cosine(10, shift=0.0), r"schedule\.shift=0.0 must be above 0"),
        (lambda: edm(10, sigma_min=2.0, sigma_max=1.0), r"schedule\.sigma_min=2.0, .* sigma_max above"),
        (lambda: edm(10, rho=0.0), r"schedule\.rho=0.0"),
    ],
)
def test_settings_of_paths_out_of_range_are_refused(make: Callable[[], NoiseSchedule], words: str):
    with pytest.raises(ValueError, match=words):
        make()
