"""Rectified flow and EDM on this project's chains, against each as it is stated in a frame of its own.

The statements below know nothing of chains: rectified flow has x = (1 - u) x_0 + u eps and its ODE in u, EDM
has x = x_0 + sigma eps, its preconditioning and its ODE in sigma.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.objectives import EDM, Flow, Objective, V
from ddpm.diffusion.samplers import DDIM, FlowHeun, Heun, Sampler
from ddpm.diffusion.schedules import cosine, edm, flow, linear
from ddpm.diffusion.variances import FixedLarge
from ddpm.diffusion.weighting import MinSNR, Noised, Simple

CLOSE = {"atol": 1e-10, "rtol": 1e-10}
SD = 0.4


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(math.prod(shape)), dtype=torch.float64)


def network(seen: Tensor, given: Tensor) -> Tensor:
    """Any function of what it sees and is given."""
    return torch.sin(2 * seen.roll(1, -1)) + 0.3 * seen + torch.cos(given / 7).view(-1, 1, 1, 1)


def per_image(values: list[float] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def loss_of(objective: Objective, schedule: NoiseSchedule, x_0: Tensor, eps: Tensor) -> Tensor:
    """One image at each step of the chain."""
    t = torch.arange(schedule.num_timesteps)
    x_t = q_sample(schedule, x_0, t, eps)
    parametrization = Parametrization(objective, FixedLarge())
    output = network(*parametrization.network_inputs(schedule, x_t, t))
    return Simple().losses(parametrization, schedule, Noised(x_0, t, eps, x_t), output)


def sampled(sampler: Sampler, objective: Objective, schedule: NoiseSchedule, x_t: Tensor) -> Tensor:
    denoiser = Denoiser(network, Parametrization(objective, FixedLarge()), clip=False)
    return sampler(denoiser, schedule, x_t, noise=lambda t, like: 1 / torch.zeros(()))


def times(num_timesteps: int, shift: float) -> list[float]:
    """u of each step."""
    u = [(i + 1) / num_timesteps for i in range(num_timesteps)]
    return [shift * each / (1 + (shift - 1) * each) for each in u]


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_loss_of_flow_is_that_of_its_own_frame(shift: float):
    x_0, eps, u = drawn(40, 2, 3, 3), drawn(40, 2, 3, 3).roll(1, 0), per_image(times(40, shift))
    x = (1 - u) * x_0 + u * eps
    expected = (network(x, 1000 * u.flatten()) - (eps - x_0)).square().flatten(1).mean(1)
    torch.testing.assert_close(loss_of(Flow(), flow(40, shift=shift), x_0, eps), expected, **CLOSE)


def euler(velocity: Callable[[Tensor, float], Tensor], x: Tensor, u: list[float]) -> Tensor:
    for here, below in zip(u, [*u[1:], 0.0], strict=True):
        x = x + (below - here) * velocity(x, here)
    return x


def heun(velocity: Callable[[Tensor, float], Tensor], x: Tensor, u: list[float]) -> Tensor:
    for here, below in zip(u, [*u[1:], 0.0], strict=True):
        slope = velocity(x, here)
        there = x + (below - here) * slope
        x = x + (below - here) * (slope + velocity(there, below)) / 2 if below else there
    return x


@pytest.mark.parametrize(("ours", "theirs"), [(DDIM, euler), (FlowHeun, heun)])
@pytest.mark.parametrize("steps", [[0, 3, 20, 50, 99], list(range(100))])
def test_samples_of_flow_are_those_of_its_own_ode(ours: type, theirs: Callable, steps: list[int]):
    u = times(100, 2.0)
    noise = drawn(4, 2, 3, 3)

    def velocity(x: Tensor, u: float) -> Tensor:
        return network(x, torch.full((4,), 1000 * u, dtype=torch.float64))

    expected = theirs(velocity, noise, [u[step] for step in reversed(steps)])
    found = sampled(ours(timesteps=steps), Flow(), flow(100, shift=2.0), noise)
    torch.testing.assert_close(found, expected, **CLOSE)


def test_flow_is_the_same_on_any_chain_that_has_its_noise_levels():
    """A path is a schedule: the velocity has a meaning on the cosine's chain, whose end is no pure noise."""
    schedule = cosine(60)
    signal, noise = schedule.alphas_cumprod.sqrt(), (1 - schedule.alphas_cumprod).sqrt()
    u = per_image(noise / (signal + noise))
    x_0, eps = drawn(60, 2, 3, 3), drawn(60, 2, 3, 3).roll(1, 0)
    expected = (network((1 - u) * x_0 + u * eps, 1000 * u.flatten()) - (eps - x_0)).square()
    torch.testing.assert_close(loss_of(Flow(), schedule, x_0, eps), expected.flatten(1).mean(1), **CLOSE)


def sigmas(num_timesteps: int) -> Tensor:
    """Karras et al. 2022, eq. 5, from the first step of a chain to the last."""
    share = torch.arange(num_timesteps, dtype=torch.float64) / (num_timesteps - 1)
    return (80 ** (1 / 7) + share * (0.002 ** (1 / 7) - 80 ** (1 / 7))).pow(7).flip(0)


def denoised(x: Tensor, sigma: Tensor) -> Tensor:
    """D(x; sigma) of table 1."""
    c_skip = SD**2 / (sigma**2 + SD**2)
    c_out = sigma * SD / (sigma**2 + SD**2).sqrt()
    return c_skip * x + c_out * network(x / (sigma**2 + SD**2).sqrt(), sigma.flatten().log() / 4)


def test_the_loss_of_edm_is_that_of_its_own_frame():
    x_0, eps, sigma = drawn(40, 2, 3, 3), drawn(40, 2, 3, 3).roll(1, 0), per_image(sigmas(40))
    weight = (sigma**2 + SD**2) / (sigma * SD) ** 2
    expected = (weight * (denoised(x_0 + sigma * eps, sigma) - x_0).square()).flatten(1).mean(1)
    torch.testing.assert_close(loss_of(EDM(SD), edm(40), x_0, eps), expected, atol=1e-10, rtol=1e-9)


def test_the_denoised_image_of_edm_is_that_of_its_own_frame():
    schedule, sigma, x = edm(1000), per_image(sigmas(1000)[::37]), drawn(28, 2, 3, 3)
    t = torch.arange(0, 1000, 37)
    x_t = x / (1 + sigma**2).sqrt()
    found = Denoiser(network, Parametrization(EDM(SD), FixedLarge()), clip=False)(schedule, x_t, t)
    torch.testing.assert_close(found.x_0, denoised(x, sigma), **CLOSE)


def test_samples_of_edm_are_those_of_its_algorithm():
    """Algorithm 1, at 18 steps that are spaced by rho = 7 themselves."""
    levels = sigmas(1000)
    visited = torch.linspace(0, 999, 18).round().long().flip(0).tolist()
    noise = drawn(4, 2, 3, 3)
    x = noise * (1 + levels[-1] ** 2).sqrt()  # their start has sigma_max alone
    for step, below in zip(visited, [*visited[1:], None], strict=True):
        sigma = per_image([float(levels[step])])
        slope = (x - denoised(x, sigma.expand(4, 1, 1, 1))) / sigma
        next_sigma = per_image([0.0 if below is None else float(levels[below])])
        there = x + (next_sigma - sigma) * slope
        if below is not None:
            slope = (slope + (there - denoised(there, next_sigma.expand(4, 1, 1, 1))) / next_sigma) / 2
        x = x + (next_sigma - sigma) * slope
    torch.testing.assert_close(sampled(Heun(18), EDM(SD), edm(1000), noise), x, **CLOSE)


def test_edm_of_unit_data_is_v_with_the_other_sign():
    schedule, t = linear(50), torch.arange(50)
    x_0, eps = drawn(50, 1, 2, 2), drawn(50, 1, 2, 2).roll(1, 0)
    found = EDM(1.0).target(schedule, x_0, t, eps)
    torch.testing.assert_close(found, -V().target(schedule, x_0, t, eps), **CLOSE)
    x_t = q_sample(schedule, x_0, t, eps)
    torch.testing.assert_close(EDM(1.0).network_inputs(schedule, x_t, t)[0], x_t, **CLOSE)


@pytest.mark.parametrize("objective", [Flow(), EDM(SD)])
def test_what_a_network_sees_and_predicts_of_a_path_has_the_size_of_the_data(objective: Objective):
    """In single precision too, at both ends."""
    schedule = edm(1000)
    t = torch.tensor([0, 1, 500, 999])
    x_0, eps = SD * drawn(4, 1, 50, 50).float(), drawn(4, 1, 50, 50).roll(1, 0).float()
    x_t = q_sample(schedule, x_0, t, eps)
    seen, given = objective.network_inputs(schedule, x_t, t)
    target = objective.target(schedule, x_0, t, eps)
    assert seen.dtype == given.dtype == target.dtype == torch.float32
    assert given.diff().gt(0).all()
    assert target.isfinite().all()
    assert 0.3 < float(seen.std()) < 1.1
    back = objective.x_0(schedule, x_t, t, target)
    torch.testing.assert_close(back, x_0, atol=2e-4, rtol=0)
    if isinstance(objective, EDM):
        for spread in (*seen.flatten(1).std(1), *target.flatten(1).std(1)):
            assert float(spread) == pytest.approx(1, abs=0.05)


def test_the_weight_of_x_0_is_what_it_is_for_any_objective():
    """Min-SNR is stated on x_0, and an error of the output is turned into one of x_0."""
    schedule, t = cosine(30), torch.arange(30)
    x_0, eps = drawn(30, 1, 2, 2), drawn(30, 1, 2, 2).roll(1, 0)
    x_t = q_sample(schedule, x_0, t, eps)
    for objective in (Flow(), EDM(SD)):
        output = objective.target(schedule, x_0, t, eps) + 0.01 * drawn(30, 1, 2, 2)
        error = (objective.x_0(schedule, x_t, t, output) - x_0).square().flatten(1).mean(1)
        parametrization = Parametrization(objective, FixedLarge())
        found = MinSNR(5.0).losses(parametrization, schedule, Noised(x_0, t, eps, x_t), output)
        torch.testing.assert_close(found, schedule.snr.clamp(max=5) * error, atol=1e-12, rtol=1e-8)


def test_a_deviation_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"objective.sigma_data=0.0 must be above 0"):
        EDM(0.0)
