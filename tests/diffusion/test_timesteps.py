"""Timesteps: each stratum once, importance sampling without bias, and the same on devices without float64."""

import math
from fractions import Fraction
from functools import cache
from itertools import pairwise

import pytest
import torch
from mps import mps
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.schedules import cosine, edm, flow, jsd, linear
from ddpm.diffusion.timesteps import (
    LogitNormal,
    LogNormal,
    LossSecondMoment,
    Stated,
    Stratified,
    Uniform,
    floor_of_product,
)

chain = cache(jsd)
"""Of as many steps."""


@pytest.mark.parametrize("split", [[128], [32] * 4, [8] * 16, [96, 32], [1] * 128])
@pytest.mark.parametrize("num_timesteps", [128, 1000])
def test_a_global_batch_covers_each_stratum_once_whatever_the_split(split: list[int], num_timesteps: int):
    u = torch.rand(128, generator=torch.Generator().manual_seed(0))
    drawn, first = [], 0
    for size in split:
        indices = range(first, first + size)
        drawn.append(Stratified().draw(u[first : first + size], chain(num_timesteps), indices, 128))
        first += size
    t = torch.cat(drawn)
    assert t.dtype == torch.int64
    place = torch.arange(128)
    assert (t >= place * num_timesteps // 128).all()
    assert (t <= (place + 1) * num_timesteps // 128).all()
    assert torch.equal(t, Stratified().draw(u, chain(num_timesteps)))
    if num_timesteps == 128:
        assert t.tolist() == list(range(128))


def test_every_step_is_drawn_by_the_highest_and_the_lowest_number():
    u = torch.tensor([0.0, 1 - 2**-24])
    for timesteps in (Uniform(), LossSecondMoment(), filled([1.0, 2.0, 3.0, 4.0])):
        assert timesteps.draw(u, chain(4)).tolist() == [0, 3]


def filled(losses: list[float], history: int = 10) -> LossSecondMoment:
    timesteps = LossSecondMoment(history=history)
    for _ in range(history):
        timesteps.observe(torch.arange(len(losses)), torch.tensor(losses), chain(len(losses)))
    return timesteps


def test_importance_follows_the_root_of_the_second_moment():
    timesteps = LossSecondMoment(history=2, uniform_share=1e-9)
    timesteps.observe(torch.tensor([0, 1, 2]), torch.tensor([3.0, 0.0, 1.0]), chain(3))
    timesteps.observe(torch.tensor([2, 1, 0]), torch.tensor([1.0, 0.0, 4.0]), chain(3))
    roots = torch.tensor([12.5**0.5, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(timesteps.probabilities(3), roots / roots.sum(), atol=1e-7, rtol=0)


def test_importance_is_uniform_until_every_history_is_full():
    timesteps = LossSecondMoment(history=3)
    t = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    timesteps.observe(t, torch.arange(8.0), chain(3))
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(timesteps.probabilities(3), even)
    timesteps.observe(torch.tensor([2]), torch.tensor([9.0]), chain(3))
    assert not torch.allclose(timesteps.probabilities(3), even)


def test_importance_is_unbiased():
    losses = torch.tensor([5.0, 0.1, 2.0, 0.0, 1.0], dtype=torch.float64)
    for timesteps in (LossSecondMoment(), filled([4.0, 0.2, 3.0, 0.0, 1.0])):
        p = timesteps.probabilities(5)
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
        weight = timesteps.weight(torch.arange(5), chain(5)).double()
        assert float((p * weight * losses).sum()) == pytest.approx(float(losses.mean()), rel=1e-6)


def test_importance_draws_as_often_as_it_says():
    timesteps = filled([4.0, 0.2, 3.0, 0.0, 1.0])
    u = (torch.arange(100_000) + 0.5) / 100_000
    found = torch.bincount(timesteps.draw(u, chain(5)), minlength=5) / 100_000
    torch.testing.assert_close(found.double(), timesteps.probabilities(5), atol=2e-5, rtol=0)


def test_only_the_last_losses_count_also_where_a_batch_has_more_of_them():
    timesteps = LossSecondMoment(history=3)
    t = torch.tensor([0, 1, 0, 0, 1, 0, 0])
    timesteps.observe(t, torch.arange(7.0), chain(2))
    assert sorted(timesteps.seen[0].tolist()) == [3, 5, 6]
    assert timesteps.counts.tolist() == [5, 2]
    timesteps.observe(torch.tensor([1, 0, 1]), torch.tensor([7.0, 8.0, 9.0]), chain(2))
    assert sorted(timesteps.seen[0].tolist()) == [5, 6, 8]
    assert sorted(timesteps.seen[1].tolist()) == [4, 7, 9]


def test_one_batch_or_one_at_a_time_is_the_same():
    generator = torch.Generator().manual_seed(0)
    t, losses = torch.randint(7, (200,), generator=generator), torch.rand(200, generator=generator)
    at_once, one_by_one = LossSecondMoment(), LossSecondMoment()
    at_once.observe(t, losses, chain(7))
    for i in range(200):
        one_by_one.observe(t[i : i + 1], losses[i : i + 1], chain(7))
    assert torch.equal(at_once.seen, one_by_one.seen)
    assert torch.equal(at_once.counts, one_by_one.counts)


def test_the_state_is_all_that_was_learned():
    timesteps, other = filled([1.0, 5.0, 2.0]), LossSecondMoment()
    other.load_state_dict(timesteps.state_dict())
    for each in (timesteps, other):
        each.observe(torch.tensor([1]), torch.tensor([0.0]), chain(3))
    assert torch.equal(timesteps.probabilities(3), other.probabilities(3))
    Uniform().load_state_dict(Uniform().state_dict())


@pytest.mark.parametrize("settings", [{"history": 0}, {"uniform_share": 0.0}, {"uniform_share": 1.1}])
def test_settings_out_of_range_are_refused(settings: dict):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LossSecondMoment(**settings)


EDGES = [0.0, 2**-24, 2**-24 * (1 + 2**-23), 0.1, 0.125, 0.3, 0.5, 0.7, 0.999, 1 - 2**-24, 1e-30, 2**-40]


def some_numbers(count: int) -> Tensor:
    """float32 in [0, 1): edges, digits that a multiple of 2^-24 has not, and the last numbers before
    a thousandth.
    """
    u = torch.rand(count, generator=torch.Generator().manual_seed(3)) ** 3
    before = torch.nextafter(torch.arange(1, 1000, 7) / 1000, torch.zeros(()))
    return torch.cat([torch.tensor(EDGES), before, u])


@pytest.mark.parametrize("n", [1, 2, 3, 10, 1000, 4000, 4001, 2**36 + 12345])
def test_the_product_is_exact_where_float32_is_not(n: int):
    u = some_numbers(2000)
    exact = [int(Fraction(each) * n) for each in u.tolist()]
    found = floor_of_product(u, n)
    assert found.tolist() == [min(each, n - 1) for each in exact]
    assert floor_of_product(u, torch.tensor(n)).tolist() == found.tolist()
    if n == 1000:  # these numbers tell it from a product in float32
        assert (u * n).long().tolist() != exact


@pytest.mark.parametrize("num_timesteps", [1, 10, 1000, 4000])
def test_numbers_of_before_give_the_timesteps_of_before(num_timesteps: int):
    """What a run drew before it was interrupted, it draws again: on the CPU by float64."""
    u = some_numbers(2000)
    before = (u.double() * num_timesteps).long().clamp(max=num_timesteps - 1)
    assert torch.equal(Uniform().draw(u, chain(num_timesteps)), before)
    place = torch.arange(64, 96, dtype=torch.float64)
    before = ((place + u[:32].double()) / 100 * num_timesteps).long().clamp(max=num_timesteps - 1)
    assert torch.equal(Stratified().draw(u[:32], chain(num_timesteps), range(64, 96), 100), before)


@pytest.mark.parametrize("batch_size", [1, 7, 100, 128, 4096, 1_000_003])
@pytest.mark.parametrize("num_timesteps", [10, 1000, 4000])
def test_strata_are_exact_where_there_is_no_float64(num_timesteps: int, batch_size: int):
    u = some_numbers(50)
    first = max(0, batch_size - len(u))
    indices = range(first, first + len(u))
    exact = [
        int((i + Fraction(each)) * num_timesteps / batch_size)
        for i, each in zip(indices, u.tolist(), strict=True)
    ]
    with mps() as gpu:
        t = Stratified().draw(u.to(gpu.device), chain(num_timesteps), indices, batch_size)
        assert t.device == gpu.device
        assert not gpu.waits
        assert t.tolist() == exact


class NoFloatingCumsum(TorchDispatchMode):
    """CUDA with deterministic algorithms, which has no cumsum of floating numbers."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not (func._schema.name == "aten::cumsum" and args[0].is_floating_point())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_timesteps", [1, 5, 1000, 4000])
@pytest.mark.parametrize("uniform_share", [0.001, 1e-9])
def test_importance_draws_on_a_device_what_it_draws_on_the_cpu(num_timesteps: int, uniform_share: float):
    generator = torch.Generator().manual_seed(5)
    losses = torch.rand(num_timesteps, generator=generator) ** 4
    u = torch.rand(50_000, generator=generator)
    on_cpu, on_gpu = (LossSecondMoment(1, uniform_share) for _ in range(2))
    t = torch.randperm(num_timesteps, generator=generator)
    on_cpu.observe(t, losses, chain(num_timesteps))
    expected, weight = on_cpu.draw(u, chain(num_timesteps)), on_cpu.weight(t, chain(num_timesteps))
    with mps() as gpu, NoFloatingCumsum():
        to_be_drawn, shown = u.to(gpu.device), (t.to(gpu.device), losses.to(gpu.device))
        on_gpu.observe(*shown, chain(num_timesteps))
        found = on_gpu.draw(to_be_drawn, chain(num_timesteps))
        found_weight = on_gpu.weight(shown[0], chain(num_timesteps))
        assert not gpu.waits
        found, found_weight = found.cpu(), found_weight.cpu()
    assert int((found != expected).sum()) <= 10  # on the edge between two steps
    assert int((found - expected).abs().max()) <= 1
    torch.testing.assert_close(found_weight, weight, rtol=1e-5, atol=0)


def test_importance_on_a_device_is_uniform_before_it_has_seen_losses():
    u = (torch.arange(12_000) + 0.5) / 12_000
    with mps() as gpu:
        t = LossSecondMoment().draw(u.to(gpu.device), chain(4000)).cpu()
    counts = torch.bincount(t, minlength=4000)
    assert int(counts.min()) >= 2
    assert int(counts.max()) <= 4


def test_what_was_learned_moves_between_devices():
    timesteps = filled([1.0, 5.0, 2.0])
    with mps() as gpu:
        timesteps.observe(
            torch.tensor([1], device=gpu.device), torch.tensor([9.0], device=gpu.device), chain(3)
        )
        state = {name: value.cpu() for name, value in timesteps.state_dict().items()}
    there = filled([1.0, 5.0, 2.0])
    there.observe(torch.tensor([1]), torch.tensor([9.0]), chain(3))
    assert torch.equal(state["seen"], there.seen)
    assert torch.equal(state["counts"], there.counts)


def test_a_loss_that_is_not_finite_says_nothing_of_its_step():
    timesteps = LossSecondMoment(history=1)
    timesteps.observe(torch.arange(5), torch.arange(1.0, 6.0), chain(5))
    before = timesteps.probabilities(5)
    timesteps.observe(torch.tensor([1, 3]), torch.tensor([math.nan, math.inf]), chain(5))
    torch.testing.assert_close(timesteps.probabilities(5), before)


def test_the_logit_of_the_place_in_the_chain_is_gaussian():
    """A step is drawn as often as the Gaussian falls between the logits of its two ends."""
    timesteps, schedule = LogitNormal(0.5, 0.8), flow(10, shift=3.0)
    p = timesteps.probabilities(schedule)
    ends = [-math.inf, *(math.log(i / (10 - i)) for i in range(1, 10)), math.inf]
    cdf = [0.5 + 0.5 * math.erf((end - 0.5) / 0.8 / 2**0.5) for end in ends]
    assert p.tolist() == pytest.approx([b - a for a, b in pairwise(cdf)], abs=1e-12)
    assert torch.equal(p, timesteps.probabilities(linear(100).respaced(range(10))))
    check_drawn(timesteps, schedule)


def test_the_logarithm_of_sigma_is_gaussian_on_any_schedule():
    timesteps = LogNormal(-1.2, 1.2)
    for schedule in (edm(1000), cosine(1000)):
        timesteps.check(schedule)
        p, log_sigma = timesteps.probabilities(schedule), -schedule.snr.log() / 2
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
        mean = float((p * log_sigma).sum())
        assert mean == pytest.approx(-1.2, abs=2e-3)
        assert float((p * (log_sigma - mean).square()).sum().sqrt()) == pytest.approx(1.2, abs=0.01)
        check_drawn(timesteps, schedule)


def check_drawn(timesteps: Stated, schedule: NoiseSchedule) -> None:
    """Evenly spaced numbers are turned into steps with their probabilities, and weighed by them if asked."""
    u, p = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000, timesteps.probabilities(schedule)
    t = timesteps.draw(u, schedule)
    often = torch.bincount(t, minlength=len(p)) / 200_000
    torch.testing.assert_close(often, p.float(), atol=2e-5, rtol=0)
    assert timesteps.reweights
    assert timesteps.weight(t, schedule).unique().tolist() == [1.0]
    unbiased = type(timesteps)(timesteps.mean, timesteps.std, unbiased=True)
    assert not unbiased.reweights
    seen = p > 1e-6
    weight = unbiased.weight(torch.arange(len(p)), schedule).double()
    torch.testing.assert_close(
        (weight * p * len(p))[seen], torch.ones(int(seen.sum())).double(), atol=1e-5, rtol=0
    )


def test_a_step_without_probability_is_not_drawn_at_the_ends():
    u = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    for timesteps in (LogitNormal(), LogNormal(0.0, 0.01)):
        t = timesteps.draw(u, edm(40))
        assert (timesteps.probabilities(edm(40))[t] > 0).all()
        assert t[0] <= t[1] < 40


@pytest.mark.parametrize("made", [LogitNormal, LogNormal])
def test_a_deviation_of_nothing_is_refused(made: type[Stated]):
    with pytest.raises(ValueError, match=r"timesteps.std=0.0 must be above 0"):
        made(0.0, 0.0)
