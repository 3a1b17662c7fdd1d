"""Timesteps: each stratum once, and importance sampling without bias."""

import pytest
import torch

from ddpm.diffusion.timesteps import LossSecondMoment, Stratified, Uniform


@pytest.mark.parametrize("split", [[128], [32] * 4, [8] * 16, [96, 32], [1] * 128])
@pytest.mark.parametrize("num_timesteps", [128, 1000])
def test_a_global_batch_covers_each_stratum_once_whatever_the_split(split: list[int], num_timesteps: int):
    u = torch.rand(128, generator=torch.Generator().manual_seed(0))
    drawn, first = [], 0
    for size in split:
        indices = range(first, first + size)
        drawn.append(Stratified().draw(u[first : first + size], num_timesteps, indices, 128))
        first += size
    t = torch.cat(drawn)
    assert t.dtype == torch.int64
    place = torch.arange(128)
    assert (t >= place * num_timesteps // 128).all()
    assert (t <= (place + 1) * num_timesteps // 128).all()
    assert torch.equal(t, Stratified().draw(u, num_timesteps))
    if num_timesteps == 128:
        assert t.tolist() == list(range(128))


def test_every_step_is_drawn_by_the_highest_and_the_lowest_number():
    u = torch.tensor([0.0, 1 - 2**-24])
    for timesteps in (Uniform(), LossSecondMoment(), filled([1.0, 2.0, 3.0, 4.0])):
        assert timesteps.draw(u, 4).tolist() == [0, 3]


def filled(losses: list[float], history: int = 10) -> LossSecondMoment:
    timesteps = LossSecondMoment(history=history)
    for _ in range(history):
        timesteps.observe(torch.arange(len(losses)), torch.tensor(losses), len(losses))
    return timesteps


def test_importance_follows_the_root_of_the_second_moment():
    timesteps = LossSecondMoment(history=2, uniform_share=1e-9)
    timesteps.observe(torch.tensor([0, 1, 2]), torch.tensor([3.0, 0.0, 1.0]), 3)
    timesteps.observe(torch.tensor([2, 1, 0]), torch.tensor([1.0, 0.0, 4.0]), 3)
    roots = torch.tensor([12.5**0.5, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(timesteps.probabilities(3), roots / roots.sum(), atol=1e-7, rtol=0)


def test_importance_is_uniform_until_every_history_is_full():
    timesteps = LossSecondMoment(history=3)
    t = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
    timesteps.observe(t, torch.arange(8.0), 3)
    even = torch.full((3,), 1 / 3, dtype=torch.float64)
    torch.testing.assert_close(timesteps.probabilities(3), even)
    timesteps.observe(torch.tensor([2]), torch.tensor([9.0]), 3)
    assert not torch.allclose(timesteps.probabilities(3), even)


def test_importance_is_unbiased():
    losses = torch.tensor([5.0, 0.1, 2.0, 0.0, 1.0], dtype=torch.float64)
    for timesteps in (LossSecondMoment(), filled([4.0, 0.2, 3.0, 0.0, 1.0])):
        p = timesteps.probabilities(5)
        assert float(p.sum()) == pytest.approx(1, abs=1e-12)
        weight = timesteps.weight(torch.arange(5), 5).double()
        assert float((p * weight * losses).sum()) == pytest.approx(float(losses.mean()), rel=1e-6)


def test_importance_draws_as_often_as_it_says():
    timesteps = filled([4.0, 0.2, 3.0, 0.0, 1.0])
    u = (torch.arange(100_000) + 0.5) / 100_000
    found = torch.bincount(timesteps.draw(u, 5), minlength=5) / 100_000
    torch.testing.assert_close(found.double(), timesteps.probabilities(5), atol=2e-5, rtol=0)


def test_only_the_last_losses_count_also_where_a_batch_has_more_of_them():
    timesteps = LossSecondMoment(history=3)
    t = torch.tensor([0, 1, 0, 0, 1, 0, 0])
    timesteps.observe(t, torch.arange(7.0), 2)
    assert sorted(timesteps.seen[0].tolist()) == [3, 5, 6]
    assert timesteps.counts.tolist() == [5, 2]
    timesteps.observe(torch.tensor([1, 0, 1]), torch.tensor([7.0, 8.0, 9.0]), 2)
    assert sorted(timesteps.seen[0].tolist()) == [5, 6, 8]
    assert sorted(timesteps.seen[1].tolist()) == [4, 7, 9]


def test_one_batch_or_one_at_a_time_is_the_same():
    generator = torch.Generator().manual_seed(0)
    t, losses = torch.randint(7, (200,), generator=generator), torch.rand(200, generator=generator)
    at_once, one_by_one = LossSecondMoment(), LossSecondMoment()
    at_once.observe(t, losses, 7)
    for i in range(200):
        one_by_one.observe(t[i : i + 1], losses[i : i + 1], 7)
    assert torch.equal(at_once.seen, one_by_one.seen)
    assert torch.equal(at_once.counts, one_by_one.counts)


def test_the_state_is_all_that_was_learned():
    timesteps, other = filled([1.0, 5.0, 2.0]), LossSecondMoment()
    other.load_state_dict(timesteps.state_dict())
    for each in (timesteps, other):
        each.observe(torch.tensor([1]), torch.tensor([0.0]), 3)
    assert torch.equal(timesteps.probabilities(3), other.probabilities(3))
    Uniform().load_state_dict(Uniform().state_dict())


@pytest.mark.parametrize("settings", [{"history": 0}, {"uniform_share": 0.0}, {"uniform_share": 1.1}])
def test_settings_out_of_range_are_refused(settings: dict):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LossSecondMoment(**settings)
