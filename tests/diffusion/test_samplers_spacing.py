"""Which steps are visited, what is refused, and what every sampler has in common."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddpm.diffusion import Denoiser, NoiseSchedule, Parametrization, Prediction, predict_eps, q_sample
from ddpm.diffusion.objectives import Epsilon, Objective
from ddpm.diffusion.samplers import (
    DDIM,
    DEIS,
    Ancestral,
    DDIMInversion,
    DPMSolver,
    Heun,
    Sampler,
    Spacing,
    Trajectory,
)
from ddpm.diffusion.samplers.spacing import Shape, quadratically_spaced
from ddpm.diffusion.schedules import cosine, jsd, linear
from ddpm.diffusion.variances import FixedSmall

SHAPE = (2, 3, 4, 4)
EVERY: list[Callable[..., Sampler]] = [Ancestral, DDIM, DEIS, DPMSolver, Heun]
every_sampler = pytest.mark.parametrize("make", EVERY)


def noise_at(t: int, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(t), dtype=like.dtype)


def start_noise() -> Tensor:
    return noise_at(12345, torch.empty(SHAPE, dtype=torch.float64))


def network(x: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(1.3 * x + t.to(x.dtype).view(-1, 1, 1, 1).sin())


def visits(sampler: Sampler, schedule: NoiseSchedule, start: int | None = None) -> list[int]:
    """The timesteps at which a run asks the network."""
    asked: list[int] = []

    def listening(x: Tensor, t: Tensor) -> Tensor:
        asked.append(int(t[0]))
        return network(x, t)

    denoiser = Denoiser(listening, Parametrization(Epsilon(), FixedSmall()))
    sampler(denoiser, schedule, start_noise(), noise=noise_at, start=start)
    return asked


def highest(spacing: str, num_steps: int, num_timesteps: int) -> int:
    """Where a chain of so many steps ends."""
    return (num_steps - 1) * (num_timesteps // num_steps) if spacing == "leading" else num_timesteps - 1


@pytest.mark.parametrize("spacing", get_args(Shape))
@pytest.mark.parametrize("make", [linear, cosine, jsd])
def test_every_number_of_steps_rises_to_where_it_should_end(make: Callable, spacing: str):
    for num_timesteps in (100,) if make is linear else (1, 2, 5, 36):
        schedule = make(num_timesteps)
        for num_steps in range(1, num_timesteps + 1):
            steps = Spacing(num_steps, spacing).steps(schedule).tolist()
            assert len(steps) == num_steps
            assert steps == sorted(set(steps)), "rising, and each once"
            assert steps[-1] == highest(spacing, num_steps, num_timesteps)
            if num_steps > 1:
                assert steps[0] == (round(num_timesteps / num_steps) - 1 if spacing == "trailing" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", get_args(Shape))
@pytest.mark.parametrize("make", [linear, cosine])
def test_every_number_of_steps_of_a_long_chain(make: Callable, spacing: str):
    schedule = make(1000)
    for num_steps in range(1, 1001):
        steps = Spacing(num_steps, spacing).steps(schedule)
        assert len(steps) == num_steps
        assert bool((steps.diff() > 0).all())
        assert 0 <= int(steps[0]) <= int(steps[-1]) == highest(spacing, num_steps, 1000)


@given(st.data())
def test_any_number_of_steps_rises_to_a_start(data: st.DataObject):
    schedule = cosine(41)
    start = data.draw(st.integers(0, 40))
    num_steps = data.draw(st.integers(1, start + 1))
    spacing = data.draw(st.sampled_from(get_args(Shape)))
    steps = Spacing(num_steps, spacing).steps(schedule, start).tolist()
    assert steps == sorted(set(steps))
    assert steps[-1] == start
    if spacing == "leading":  # a list for the whole chain
        assert steps[:-1] == [t for t in Spacing(num_steps, spacing).steps(schedule).tolist() if t < start]
    else:
        assert len(steps) == num_steps
        assert num_steps == 1 or spacing == "trailing" or steps[0] == 0


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_leading_and_trailing_are_those_of_diffusers(spacing: str):
    schedule, theirs = linear(1000), DDIMScheduler(timestep_spacing=spacing)
    for num_steps in range(1, 1001):
        theirs.set_timesteps(num_steps)
        # their trailing ones go one beyond 0 where rounding has it so
        expected = theirs.timesteps[:num_steps].flip(0).tolist()
        assert Spacing(num_steps, spacing).steps(schedule).tolist() == expected


@pytest.mark.parametrize("make", [linear, cosine])
@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_log_snr_and_karras_are_the_nearest_steps_to_even_levels(make: Callable, rho: float):
    schedule = make(1000)
    sigmas = np.sqrt(1 / schedule.alphas_cumprod.numpy() - 1)
    for spacing, levels in (("log_snr", -2 * np.log(sigmas)), ("karras", sigmas ** (1 / rho))):
        ideal = np.linspace(levels[0], levels[-1], 8)
        nearest = [int(np.abs(levels - level).argmin()) for level in ideal]
        expected: list[int] = []
        for k, t in enumerate(nearest):  # apart, and with room for those above
            expected.append(min(max(t, expected[-1] + 1 if k else 0), 999 - (7 - k)))
        assert Spacing(8, spacing, rho=rho).steps(schedule).tolist() == expected
    if make is cosine:  # at its end one step of sigma is nearly all
        return
    theirs = EulerDiscreteScheduler()._convert_to_karras(sigmas[::-1], 8)[::-1] ** (1 / 7)
    found = sigmas[Spacing(8, "karras").steps(schedule).numpy()] ** (1 / 7)
    assert np.abs(found - theirs).max() < np.diff(sigmas ** (1 / 7)).max() / 2 + 1e-6


def space_timesteps(num_timesteps: int, counts: str | list[int]) -> list[int] | None:
    """The rule of Nichol and Dhariwal's code, in other words; None where it has no steps to give."""
    if isinstance(counts, str):
        wanted = int(counts.removeprefix("ddim"))
        strides = [range(0, num_timesteps, stride) for stride in range(1, num_timesteps)]
        return next((list(steps) for steps in strides if len(steps) == wanted), None)
    taken: set[int] = set()
    begin = 0
    for section, count in enumerate(counts):
        size = num_timesteps // len(counts) + (section < num_timesteps % len(counts))
        if size < count:
            return None
        place, stride = 0.0, (1 if count <= 1 else (size - 1) / (count - 1))
        for _ in range(count):
            taken.add(begin + round(place))
            place += stride
        begin += size
    return sorted(taken)


@pytest.mark.parametrize("num_timesteps", [7, 100, 1000])
def test_ddim_n_is_the_stride_of_the_original_code(num_timesteps: int):
    schedule = cosine(num_timesteps)
    for count in range(2, 101) if num_timesteps < 1000 else (2, 3, 50, 51, 100, 333, 500, 501, 1000):
        if count > num_timesteps:
            break
        expected = space_timesteps(num_timesteps, f"ddim{count}")
        if expected is None:
            with pytest.raises(ValueError, match=rf"spacing=ddim{count}: no whole stride .* use .*=ddim\d"):
                Spacing(spacing=f"ddim{count}").steps(schedule)
        else:
            assert Spacing(spacing=f"ddim{count}").steps(schedule).tolist() == expected
    if num_timesteps == 1000:
        assert Spacing(spacing="ddim50").steps(schedule).tolist() == list(range(0, 1000, 20))


@given(st.integers(1, 300), st.lists(st.integers(0, 20), min_size=1, max_size=5).filter(any))
def test_sections_are_those_of_the_original_code(num_timesteps: int, counts: list[int]):
    expected = space_timesteps(num_timesteps, counts)
    schedule = NoiseSchedule(torch.full((num_timesteps,), 0.01))
    if expected is None:
        with pytest.raises(ValueError, match=r"sampler\.spacing=\[.*\]: .* use fewer sections"):
            Spacing(spacing=counts).steps(schedule)
    else:
        assert Spacing(spacing=counts).steps(schedule).tolist() == expected


def test_quadratic_steps_are_denser_near_the_image():
    assert quadratically_spaced(5, 80).tolist() == [0, 5, 20, 45, 80]
    assert quadratically_spaced(6, 9).tolist() == [0, 1, 2, 3, 6, 9], "moved up where squares fall together"
    assert quadratically_spaced(10, 9).tolist() == list(range(10))
    assert quadratically_spaced(1, 9).tolist() == [9]


@pytest.mark.parametrize(
    ("settings", "start", "expected"),
    [
        ({"num_steps": 4}, None, [99, 66, 33, 0]),
        ({"num_steps": 4}, 30, [30, 20, 10, 0]),
        ({"num_steps": None}, 3, [3, 2, 1, 0]),
        ({"num_steps": 4, "spacing": "quadratic"}, None, [99, 44, 11, 0]),
        ({"num_steps": 4, "spacing": "leading"}, None, [75, 50, 25, 0]),
        ({"num_steps": 4, "spacing": "leading"}, 30, [30, 25, 0]),
        ({"num_steps": 4, "spacing": "trailing"}, None, [99, 74, 49, 24]),
        ({"num_steps": 4, "spacing": "trailing"}, 30, [30, 22, 15, 7]),
        ({"num_steps": 9, "spacing": "ddim4"}, None, [75, 50, 25, 0]),
        ({"spacing": "ddim4"}, 60, [60, 50, 25, 0]),
        ({"spacing": [1, 3, 1]}, None, [67, 66, 50, 34, 0]),
        ({"spacing": [1, 3, 1]}, 40, [40, 34, 0]),
        ({"timesteps": [5, 50, 98]}, None, [98, 50, 5]),
        ({"num_steps": 7, "timesteps": [5, 50, 98]}, None, [98, 50, 5]),
        ({"timesteps": [5, 50, 98]}, 99, [99, 98, 50, 5]),
        ({"timesteps": [5, 50, 98]}, 50, [50, 5]),
        ({"timesteps": [5, 50, 98]}, 20, [20, 5]),
        ({"timesteps": [5, 50, 98]}, 2, [2]),
    ],
)
@every_sampler
def test_the_steps_visited(
    make: Callable[..., Sampler], settings: dict, start: int | None, expected: list[int]
):
    asked = visits(make(**settings), linear(100), start)
    if make is Heun:
        assert asked == [expected[0], *(t for t in expected[1:] for _ in range(2))]
    else:
        assert asked == expected


@every_sampler
@pytest.mark.parametrize(
    "settings",
    [
        {"num_steps": None},
        {"num_steps": 1},
        {"num_steps": 7},
        {"num_steps": 7, "spacing": "log_snr"},
        {"spacing": "ddim20"},
        {"timesteps": [5, 50, 98]},
    ],
)
def test_nfe_is_the_number_of_network_calls(make: Callable[..., Sampler], settings: dict):
    sampler = make(**settings)
    assert len(visits(sampler, linear(100))) == sampler.nfe(linear(100))
    inversion, asked = DDIMInversion(**settings), []
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    inversion(denoiser, linear(100), start_noise(), on_step=lambda t, x_t, x_0: asked.append(t))
    assert len(asked) == inversion.nfe(linear(100))


@pytest.mark.parametrize("make", [*EVERY, DDIMInversion])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, r"sampler\.num_steps=0: .* from 1 to T"),
        ({"num_steps": "many"}, r"sampler\.num_steps=many"),
        ({"num_steps": 2.5}, r"sampler\.num_steps=2.5"),
        ({"spacing": "cubic"}, r"sampler\.spacing=cubic: must be uniform, leading, .* ddimN .*\[10,10,10\]"),
        ({"spacing": "ddim"}, r"sampler\.spacing=ddim: must be"),
        ({"spacing": "ddim0"}, r"sampler\.spacing=ddim0: must be"),
        ({"spacing": [10, -1]}, r"sampler\.spacing=\[10, -1\]: must be"),
        ({"spacing": [0]}, r"sampler\.spacing=\[0\]: must be"),
        ({"spacing": 50}, r"sampler\.spacing=50: must be"),
        ({"rho": 0.0}, r"sampler\.rho=0.0: must be above 0"),
        ({"timesteps": []}, r"sampler\.timesteps=\[\]"),
        ({"timesteps": [0, 5, 5]}, r"sampler\.timesteps=\[0, 5, 5\]: .* rise within 0 to T - 1"),
        ({"timesteps": [9, 5]}, r"sampler\.timesteps=\[9, 5\]: .* rise within 0 to T - 1"),
        ({"timesteps": [0, 5.5]}, r"sampler\.timesteps=\[0, 5.5\]"),
    ],
)
def test_settings_that_never_make_sense_are_refused_by_the_constructor(
    make: Callable[..., Sampler], settings: dict, message: str
):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@every_sampler
@pytest.mark.parametrize(
    ("settings", "start", "message"),
    [
        ({"num_steps": 101}, None, r"sampler\.num_steps=101: .* 1 to 100 steps"),
        ({"num_steps": 12}, 10, r"sampler\.num_steps=12: .* 1 to 11 steps"),
        ({"num_steps": 5}, 100, r"start=100: t is 0 to 99"),
        ({"num_steps": 5}, -1, r"start=-1: t is 0 to 99"),
        ({"num_steps": 101, "spacing": "leading"}, None, r"sampler\.num_steps=101: .* 1 to 100 steps"),
        ({"spacing": "ddim51"}, None, r"ddim51: .* use sampler.spacing=ddim50 or sampler.spacing=ddim100"),
        ({"spacing": [60, 1]}, None, r"sampler\.spacing=\[60, 1\]: .* section 1 only 50"),
        ({"timesteps": [0, 50]}, 100, r"start=100: t is 0 to 99"),
        ({"timesteps": [0, 100]}, None, r"sampler\.timesteps=\[0, 100\]: must rise within 0 to 99"),
        ({"timesteps": [-1, 50]}, None, r"sampler\.timesteps=\[-1, 50\]: must rise within 0 to 99"),
    ],
)
def test_settings_that_a_schedule_has_no_room_for_are_refused(
    make: Callable[..., Sampler], settings: dict, start: int | None, message: str
):
    sampler = make(**settings)
    with pytest.raises(ValueError, match=message) as caught:
        visits(sampler, linear(100), start)
    assert "\n" not in str(caught.value)
    if start is None:
        with pytest.raises(ValueError, match=message):
            sampler.nfe(linear(100))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "log_snr", "karras", "ddim100", [20, 20, 20]])
@pytest.mark.parametrize("start", [None, 600])
def test_what_is_encoded_is_decoded_by_the_same_steps(spacing: str | list[int], start: int | None):
    """Of data N(0, 0.5^2), whose best x_0 is known."""
    schedule = linear(1000)

    def denoiser(chain: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        alpha_bar = chain.alphas_cumprod[t].view(-1, 1, 1, 1)
        x_0 = 0.25 * alpha_bar.sqrt() / (1 - 0.75 * alpha_bar) * x_t
        return Prediction(x_0, predict_eps(chain, x_t, t, x_0), torch.zeros(1))

    image = 0.5 * start_noise()
    x_t = DDIMInversion(60, spacing=spacing)(denoiser, schedule, image, start=start)
    assert float(x_t.std()) > 0.9 * float(image.std()), "is noised"
    decoded = DDIM(60, spacing=spacing)(denoiser, schedule, x_t, noise=noise_at, start=start)
    torch.testing.assert_close(decoded, image, atol=0.02, rtol=0)


class KnowsTheImage(Objective):
    """An objective whose x_0 is always the same, defined at zero SNR as well."""

    def target(self, schedule: NoiseSchedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return x_0

    def x_0(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        return torch.full_like(x_t, 0.25)


def ends_at_zero_snr() -> NoiseSchedule:
    """beta = 1 / (T - t)."""
    return NoiseSchedule(1 / torch.arange(20, 0, -1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("sampler", "name"),
    [
        (DPMSolver(), "DPMSolver"),
        (DPMSolver(stochastic=True), "DPMSolver"),
        (Heun(), "Heun"),
        (DEIS(), "DEIS"),
    ],
)
def test_a_solver_in_log_snr_refuses_a_schedule_that_ends_at_zero_snr(sampler: Sampler, name: str):
    denoiser = Denoiser(network, Parametrization(KnowsTheImage(), FixedSmall()))
    message = rf"sampler: {name} .*t = 19.*sampler=ddim.*schedule\.zero_terminal_snr=false.*t = 18 or below"
    with pytest.raises(ValueError, match=message):
        type(sampler)(5)(denoiser, ends_at_zero_snr(), start_noise(), noise=noise_at)
    found = type(sampler)(5)(denoiser, ends_at_zero_snr(), start_noise(), noise=noise_at, start=18)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))


@pytest.mark.parametrize("sampler", [Ancestral(), Ancestral(5), DDIM(5), DDIM(5, eta=1.0)])
def test_the_others_do_not_mind_zero_snr(sampler: Sampler):
    denoiser = Denoiser(network, Parametrization(KnowsTheImage(), FixedSmall()))
    found = sampler(denoiser, ends_at_zero_snr(), start_noise(), noise=noise_at)
    torch.testing.assert_close(found, torch.full_like(found, 0.25))
    encoded = DDIMInversion(5)(denoiser, ends_at_zero_snr(), found)
    assert encoded.isfinite().all()


@every_sampler
@pytest.mark.parametrize("settings", [{"num_steps": 20}, {"num_steps": 20, "spacing": "quadratic"}])
def test_a_network_that_knows_the_image_leads_back_to_it(make: Callable[..., Sampler], settings: dict):
    schedule = linear(100)
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    denoiser = Denoiser(
        lambda x, t: predict_eps(schedule, x, t, image), Parametrization(Epsilon(), FixedSmall())
    )
    for start in (99, 40):
        x_t = q_sample(schedule, image, torch.full((2,), start), start_noise())
        found = make(**settings)(denoiser, schedule, x_t, noise=noise_at, start=start)
        torch.testing.assert_close(found, image, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", [lambda: DPMSolver(8, stochastic=True), *(lambda m=m: m(8) for m in EVERY)])
def test_a_call_changes_nothing_but_its_own_x_t(make: Callable[[], Sampler]):
    """Neither the caller's x_t nor the sampler: a second call gives the same, also after another schedule."""
    sampler, schedule, x_t = make(), linear(100), start_noise()
    denoiser = Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    first = sampler(denoiser, schedule, x_t, noise=noise_at)
    assert torch.equal(x_t, start_noise())
    sampler(denoiser, linear(50), x_t, noise=noise_at, start=20)
    second = sampler(denoiser, schedule, x_t, noise=noise_at)
    assert torch.equal(first, second)
    assert first.is_inference()


@every_sampler
def test_results_stay_within_the_range_of_images_and_in_their_precision(make: Callable[..., Sampler]):
    denoiser = Denoiser(
        lambda x, t: torch.full_like(x, -50), Parametrization(Epsilon(), FixedSmall()), clip=True
    )
    found = make(8)(denoiser, linear(100), start_noise().float(), noise=noise_at)
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.ones(SHAPE))


def test_the_path_of_chosen_steps():
    schedule, denoiser = linear(100), Denoiser(network, Parametrization(Epsilon(), FixedSmall()))
    whole, chosen = Trajectory(), Trajectory(timesteps=[66, 0, 12])
    for path in (whole, chosen):
        DDIM(4)(denoiser, schedule, start_noise(), noise=noise_at, on_step=path)
    assert list(whole.x_t) == list(whole.x_0) == [99, 66, 33, 0]
    assert list(chosen.x_t) == list(chosen.x_0) == [66, 0]
    assert torch.equal(whole.x_t[99], start_noise())
    for t in chosen.x_t:
        assert torch.equal(chosen.x_t[t], whole.x_t[t])
        x_0 = denoiser(schedule, whole.x_t[t], torch.full((2,), t)).x_0
        torch.testing.assert_close(whole.x_0[t], x_0, atol=1e-12, rtol=0)


def test_the_path_of_heun_holds_what_it_went_on_from():
    """The recorded x_t at a step, taken as the start, leads to the same end."""
    schedule, denoiser, path = (
        linear(100),
        Denoiser(network, Parametrization(Epsilon(), FixedSmall())),
        Trajectory(),
    )
    end = Heun(4)(denoiser, schedule, start_noise(), noise=noise_at, on_step=path)
    again = Heun(3)(denoiser, schedule, path.x_t[66], noise=noise_at, start=66)
    torch.testing.assert_close(again, end, atol=1e-12, rtol=0)
    assert torch.equal(path.x_0[0], end)
