"""The randomness contract: numbers are a function of (seed, purpose, step, place) and nothing else."""

import pytest
import torch

from ddpm.random import BLOCK, Purpose, Stream, named, seed_dropout


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize(
    "parts", [[range(48)], [range(24), range(24, 48)], [range(7), range(7, 40), range(40, 48)]]
)
def test_every_split_of_the_places_draws_the_same(distribution: str, parts: list[range]):
    draw = getattr(Stream(1, Purpose.NOISE), distribution)
    whole = draw(5, range(48), (3, 2))
    pieces = torch.cat([draw(5, part, (3, 2)) for part in parts])
    assert torch.equal(whole, pieces)


def test_a_longer_batch_begins_like_a_shorter_one():
    stream = Stream(0, Purpose.NOISE)
    assert torch.equal(stream.normal(0, range(10), (4,)), stream.normal(0, range(100), (4,))[:10])


def test_seed_purpose_step_and_block_each_give_other_numbers():
    keys = [
        (seed, purpose, step, first)
        for seed in (0, 1)
        for purpose in (Purpose.NOISE, Purpose.SAMPLE_STEP)
        for step in (0, 1)
        for first in (0, BLOCK)
    ]
    drawn = {
        tuple(Stream(seed, purpose).normal(step, range(first, first + 1), (2,))[0].tolist())
        for seed, purpose, step, first in keys
    }
    assert len(drawn) == len(keys)


def test_a_purpose_of_your_own_has_a_name_and_its_own_numbers():
    purposes = [*Purpose, "mine.metric", "mine.other", "NOISE", "", "Messung"]
    drawn = {tuple(Stream(0, p).normal(0, range(1), (4,))[0].tolist()) for p in purposes}
    assert len(drawn) == len(purposes)
    again = Stream(0, "mine.metric").normal(3, range(5, 9), (2,))
    assert torch.equal(again, Stream(0, "mine.metric").normal(3, range(20), (2,))[5:9])


def test_names_cannot_meet_the_frameworks_own_numbers():
    numbers = {named(f"purpose {i}") for i in range(1000)}
    assert len(numbers) == 1000
    assert all(max(Purpose) < number < 2**64 for number in numbers)
    assert named("mine.metric") == 0x83EFC17D882A8966  # the same in every process, on every machine


def test_places_of_a_block_differ():
    drawn = Stream(0, Purpose.NOISE).normal(0, range(BLOCK), (2,))
    assert len({tuple(row) for row in drawn.tolist()}) == BLOCK


def test_keys_beyond_32_bits_count():
    """torch's own CPU generator would give these two the same numbers."""
    low, high = (Stream(seed, Purpose.NOISE).normal(0, range(4), ()) for seed in (1, 1 + 2**32))
    assert not torch.equal(low, high)
    theirs = [torch.randn(4, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1 + 2**32)]
    assert torch.equal(*theirs)


def test_the_numbers_are_gaussian_and_uniform():
    normal = Stream(0, Purpose.NOISE).normal(0, range(1000), (200,))
    n = normal.numel()
    assert abs(float(normal.mean())) < 5 / n**0.5
    assert abs(float(normal.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((normal**4).mean()) - 3) < 5 * (96 / n) ** 0.5
    uniform = Stream(0, Purpose.TIMESTEP).uniform(0, range(200_000))
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    histogram = torch.histc(uniform, 100, 0, 1)
    assert float(((histogram - 2000) ** 2 / 2000).sum()) < 99 + 5 * (2 * 99) ** 0.5


def test_dropout_differs_by_step_micro_batch_and_rank_and_by_nothing_else():
    def drawn(*key: int) -> tuple:
        seed_dropout(*key, torch.device("cpu"))
        return tuple(torch.rand(3).tolist())

    keys = [(0, step, micro_batch, rank) for step in (0, 1) for micro_batch in (0, 1) for rank in (0, 1)]
    assert len({drawn(*key) for key in keys}) == len(keys)
    assert drawn(*keys[3]) == drawn(*keys[3])
