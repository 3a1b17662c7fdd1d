"""Every loss and its gradient in single precision is finite, and what it is in double, at every t.

For all parts that go together, on images of 8 bits, of a network whose output is 0 or noise.
"""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from conftest import first_everyday
from models import makes_sense
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.objectives import X0, Epsilon, Objective, PosteriorMean, V
from ddpm.diffusion.schedules import cosine, jsd, laplace, linear, sigmoid
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance
from ddpm.diffusion.weighting import P2, SNR, Hybrid, MinSNR, Noised, Simple, VariationalBound, Weighting

SCHEDULES = {
    "cosine": cosine,
    "linear": lambda n: linear(n, beta_end=min(0.02, n / 2000)),  # 10 steps reach no further
    "cosine, zero SNR": lambda n: cosine(n, zero_terminal_snr=True),
    "linear, zero SNR": lambda n: linear(n, beta_end=min(0.02, n / 2000), zero_terminal_snr=True),
    "sigmoid": sigmoid,
    "laplace": laplace,
    "jsd": jsd,
    "nearly zero SNR": lambda n: NoiseSchedule(torch.full((n,), 1 - 1e-34 ** (1 / n))),
}
OBJECTIVES = (Epsilon(), X0(), V(), PosteriorMean())
VARIANCES = (FixedLarge(), FixedSmall(), Learned(), LearnedRange())
WEIGHTINGS = (Simple(), SNR(), MinSNR(), P2(), VariationalBound(), Hybrid())
SMALL, LARGE = (1, 8, 8), (3, 32, 32)


def combinations(schedule: NoiseSchedule) -> Iterator[tuple[Objective, Variance, Weighting]]:
    for objective, variance, weighting in product(OBJECTIVES, VARIANCES, WEIGHTINGS):
        if makes_sense(schedule, Parametrization(objective, variance), weighting):
            yield objective, variance, weighting


def with_gradient(
    objective: Objective,
    variance: Variance,
    weighting: Weighting,
    schedule: NoiseSchedule,
    noised: Noised,
    output: Tensor,
) -> tuple[Tensor, Tensor]:
    """The losses [B], and their derivatives by the output [B, ...]."""
    output = output.clone().requires_grad_()
    parametrization = Parametrization(objective, variance)
    losses = weighting.losses(parametrization, schedule, noised, output)
    (gradient,) = torch.autograd.grad(losses.sum(), output)
    return losses.detach(), gradient


def compare(
    schedule: NoiseSchedule,
    t: Tensor,
    shape: tuple[int, int, int],
    variances: tuple[Variance, ...] = VARIANCES,
) -> int:
    """Compare all combinations that have a meaning, with one of these variances; how many there were."""
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.randint(0, 256, (len(t), *shape), generator=generator) / 127.5 - 1
    x_0[:, :, 0], x_0[:, :, 1] = -1, 1  # the levels that reach to infinity
    eps = torch.randn(x_0.shape, generator=generator)
    single = Noised(x_0, t, eps, q_sample(schedule, x_0, t, eps))
    double = Noised(x_0.double(), t, eps.double(), single.x_t.double())
    count = 0
    for parts in combinations(schedule):
        if parts[1] not in variances:
            continue
        count += 1
        channels = shape[0] * (1 + parts[1].outputs)
        noise = torch.randn(len(t), channels, *shape[1:], generator=generator)
        for output in (torch.zeros_like(noise), noise):
            losses, gradient = with_gradient(*parts, schedule, single, output)
            losses_, gradient_ = with_gradient(*parts, schedule, double, output.double())
            assert losses.dtype == gradient.dtype == torch.float32
            assert torch.isfinite(losses).all(), parts
            assert torch.isfinite(gradient).all(), parts
            # where the best output was found by chance, a digit of 1 nat is all there is of it
            floor = 1e-7 * schedule.num_timesteps
            torch.testing.assert_close(losses.double(), losses_, rtol=2e-5, atol=floor)
            largest = gradient_.flatten(1).abs().amax(1)
            worst = (gradient - gradient_).flatten(1).abs().amax(1)
            assert (worst <= 5e-5 * largest + floor / x_0[0].numel()).all(), parts
    return count


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_timesteps", first_everyday([1000, 10, 4000]))
def test_at_the_ends_and_the_middle_of_the_chain(num_timesteps: int, schedule: str):
    chain = SCHEDULES[schedule](num_timesteps)
    ends = torch.tensor([0, 1, num_timesteps // 2, num_timesteps - 2, num_timesteps - 1])
    # with zero SNR epsilon says nothing about x_0, and the weights on x_0 are 0
    compared = 3 * (2 * 3 + 2 * 2) if float(chain.alphas_cumprod[-1]) == 0 else 4 * (2 * 6 + 2 * 2)
    assert compare(chain, ends, SMALL) == compared
    if schedule in ("cosine", "linear"):
        compare(chain, ends, LARGE)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_timesteps", [10, 1000, 4000])
def test_at_every_t(num_timesteps: int, schedule: str):
    chain = SCHEDULES[schedule](num_timesteps)
    compare(chain, torch.arange(num_timesteps), SMALL)
    if schedule in ("cosine", "linear"):
        evenly = torch.linspace(0, num_timesteps - 1, min(num_timesteps, 200)).long()
        for part in evenly.split(100):
            compare(chain, part, LARGE, (VARIANCES[3],))
