"""Global batches: the same stream for every split over devices and micro-batches."""

import numpy as np
import pytest
import torch

from ddpm.data.batches import Batch, EndlessBatches, MicroBatches, in_order, share
from ddpm.data.images import ImageSet
from ddpm.data.loading import read


def numbered(n: int) -> ImageSet:
    """Images whose first pixel tells which one it is."""
    images = np.zeros((n, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return ImageSet(images, np.arange(n))


def micro_batches(rank: int = 0, world_size: int = 1, accumulation: int = 1) -> MicroBatches:
    return MicroBatches(
        50, batch_size=24, seed=3, rank=rank, world_size=world_size, accumulation=accumulation
    )


def batch_of(batches: MicroBatches, number: int) -> Batch:
    return read(numbered(50), batches[number])


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (4, 1), (1, 3), (2, 2), (3, 4), (24, 1)])
def test_devices_and_micro_batches_together_see_the_global_batch(world_size: int, accumulation: int):
    whole = micro_batches()
    parts = [micro_batches(rank, world_size, accumulation) for rank in range(world_size)]
    for step in range(5):
        batch = batch_of(whole, step)
        assert batch.indices == range(24)
        seen = {}
        for part in parts:
            for micro_batch in range(accumulation):
                piece = batch_of(part, step * accumulation + micro_batch)
                assert piece.step == step
                assert len(piece.x_0) == 24 // world_size // accumulation
                seen |= dict(zip(piece.indices, piece.labels.tolist(), strict=True))
        assert [seen[index] for index in range(24)] == batch.labels.tolist()


def test_batches_are_parts_of_one_endless_stream():
    stream = np.concatenate([batch_of(micro_batches(), step).labels for step in range(25)])
    assert all(sorted(epoch) == list(range(50)) for epoch in stream.reshape(-1, 50).tolist())


def test_a_batch_holds_the_images_that_it_names():
    batch = batch_of(micro_batches(), 2)
    assert batch.x_0.dtype == torch.uint8
    assert batch.x_0[:, 0, 0, 0].tolist() == batch.labels.tolist()


@pytest.mark.parametrize(
    ("batch_size", "world_size", "accumulation", "message"),
    [
        (64, 3, 1, "3 devices do not divide it; use 63 or 66"),
        (10, 4, 3, r"4 devices x 3 micro-batches do not divide it; use 12$"),
    ],
)
def test_a_batch_that_does_not_divide_is_refused(
    batch_size: int, world_size: int, accumulation: int, message: str
):
    with pytest.raises(ValueError, match=message):
        share(batch_size, world_size=world_size, accumulation=accumulation)


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_validation_shows_every_image_once(world_size: int):
    seen = []
    for rank in range(world_size):
        mine = range(10 * rank // world_size, 10 * (rank + 1) // world_size)
        for wanted in in_order(mine, size=2):
            batch = read(numbered(10), wanted)
            assert batch.labels.tolist() == list(batch.indices)
            seen += batch.indices
    assert seen == list(range(10))


def test_batches_asked_for_together_are_those_asked_for_alone():
    batches = micro_batches(1, 2, 3)
    for number, wanted in enumerate(batches.some(0, 40)):
        alone = batches[number]
        np.testing.assert_array_equal(wanted.indices, alone.indices)
        assert wanted[1:] == alone[1:]


def test_the_trainer_sees_them_from_a_step_on_without_end():
    batches = micro_batches()
    for number, wanted in zip(range(7, 900), EndlessBatches(batches, 7), strict=False):
        assert wanted.step == number
        np.testing.assert_array_equal(wanted.indices, batches[number].indices)
