"""A sampler in a package of one's own: a class with its update, and a message where it is not one."""

import inspect
import re
import textwrap

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.samplers import DDIM, Sampler, Trajectory, evenly_spread, random_steps
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.validity import check_request
from ddpm.diffusion.variances import FixedSmall

SCHEDULE = linear(100)


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t), dtype=like.dtype)


def denoiser() -> Denoiser:
    def network(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(1.3 * x + t.to(x.dtype).view(-1, 1, 1, 1).sin())

    return Denoiser(network, Parametrization(Epsilon(), FixedSmall()))


def x_t() -> Tensor:
    return noise_at(12345, torch.empty(2, 3, 4, 4, dtype=torch.float64))


def documented() -> type[Sampler]:
    """The class that the docstring of `Sampler` shows."""
    text = inspect.getdoc(Sampler)
    assert text is not None
    (code,) = re.findall(r"\n\n(    class .*?)\n\n", text, flags=re.DOTALL)
    names: dict[str, type[Sampler]] = {"Sampler": Sampler}
    exec(textwrap.dedent(code), names)
    return names["Deterministic"]


@pytest.mark.parametrize("settings", [{}, {"num_steps": 7}, {"timesteps": [0, 5, 60]}])
def test_the_documented_example_is_ddim_without_noise(settings: dict):
    own, ddim = documented()(**settings), DDIM(**{"num_steps": None, **settings})
    paths = Trajectory(), Trajectory()
    found, expected = (
        sampler(denoiser(), SCHEDULE, x_t(), noise=noise_at, on_step=path)
        for sampler, path in zip((own, ddim), paths, strict=True)
    )
    torch.testing.assert_close(found, expected)
    assert list(paths[0].x_t) == list(paths[1].x_t)
    assert own.nfe(SCHEDULE) == ddim.nfe(SCHEDULE) == len(paths[0].x_t)
    assert found.is_inference()
    check_request(schedule=SCHEDULE, sampler=own, guidance=NoGuidance(), start_t=70)


class Twice(Sampler):
    """One setting, no list of steps, and two uses of the network a step."""

    def __init__(self, share: float = 0.5):
        self.share = share

    def nfe(self, schedule: NoiseSchedule, start: int | None = None) -> int:
        return 2 * super().nfe(schedule, start)

    def reverse(self, predict, chain, x_t, noise):
        for i in reversed(range(chain.num_timesteps)):
            x_0 = self.share * predict(x_t, i).x_0 + (1 - self.share) * predict(x_t + noise(i, x_t), i).x_0
            alpha_bar = float(chain.alphas_cumprod_prev[i])
            x_t = alpha_bar**0.5 * x_0 + (1 - alpha_bar) ** 0.5 * noise(i, x_t)
        return x_t


def test_one_that_does_not_call_the_constructor_visits_every_step():
    asked: list[int] = []
    sampler = Twice(0.3)
    sampler(denoiser(), SCHEDULE, x_t(), noise=noise_at, start=30, on_step=lambda t, *_: asked.append(t))
    assert asked == [t for t in reversed(range(31)) for _ in range(2)]
    assert sampler.nfe(SCHEDULE, 30) == len(asked)


def test_noise_is_keyed_by_the_timestep_of_the_original_chain():
    keys: list[int] = []

    def noise(t: int, like: Tensor) -> Tensor:
        keys.append(t)
        return noise_at(t, like)

    DDIM(timesteps=[0, 5, 60], eta=1.0)(denoiser(), SCHEDULE, x_t(), noise=noise)
    assert keys == [60, 5]


def test_where_a_sampler_is_random_is_found_out_by_running_it():
    assert random_steps(DDIM(timesteps=[0, 5, 60], eta=1.0), SCHEDULE) == [60, 5]
    assert random_steps(DDIM(5), SCHEDULE) == []
    assert random_steps(Twice(), SCHEDULE, 2) == [2, 2, 1, 1, 0, 0]


def test_steps_are_spread_over_the_way():
    assert evenly_spread([9, 7, 4, 2, 0], 3) == [9, 4, 0]
    assert evenly_spread([9, 7, 4, 2, 0], 1) == [9]
    assert evenly_spread([9, 7], 12) == [9, 7]


def test_one_without_an_update_cannot_be_made():
    class Empty(Sampler):
        pass

    with pytest.raises(TypeError, match="reverse"):
        Empty()


def test_one_that_is_undefined_at_zero_snr_says_so_by_its_name():
    class InLogSNR(Twice):
        defined_at_zero_snr = False

    schedule = linear(100, zero_terminal_snr=True)
    with pytest.raises(ValueError, match=r"sampler: InLogSNR .*t = 99.*start at t = 98 or below"):
        check_request(schedule=schedule, sampler=InLogSNR(), guidance=NoGuidance())
    check_request(schedule=schedule, sampler=Twice(), guidance=NoGuidance())


def test_what_is_no_sampler_is_refused_in_one_message():
    class Plain:
        def __call__(self, denoiser, schedule, x_t, *, noise, start=None, on_step=None):
            return x_t

    message = r"sampler: Plain is no ddpm\.diffusion\.samplers\.Sampler; derive .* `reverse`"
    with pytest.raises(ValueError, match=message) as caught:
        check_request(schedule=SCHEDULE, sampler=Plain(), guidance=NoGuidance())
    assert "\n" not in str(caught.value)
