"""Global batches: the same stream for every split over devices and micro-batches."""

import numpy as np
import pytest
import torch

from ddpm.data.images import DataSet, Images, split
from ddpm.data.module import MicroBatches, in_order, read, share
from ddpm.data.sources.digits import Digits


def numbered(n: int) -> Images:
    """Images whose first pixel tells which one it is."""
    images = np.zeros((n, 1, 2, 2), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return ImageSet(images, np.arange(n))


def micro_batches(rank: int = 0, world_size: int = 1, accumulation: int = 1) -> MicroBatches:
    return MicroBatches(
        numbered(50), batch_size=24, seed=3, rank=rank, world_size=world_size, accumulation=accumulation
    )


@pytest.mark.parametrize(("world_size", "accumulation"), [(2, 1), (4, 1), (1, 3), (2, 2), (3, 4), (24, 1)])
def test_devices_and_micro_batches_together_see_the_global_batch(world_size: int, accumulation: int):
    whole = micro_batches()
    parts = [micro_batches(rank, world_size, accumulation) for rank in range(world_size)]
    for step in range(5):
        batch = whole[step]
        assert batch.places == range(24)
        seen = {}
        for part in parts:
            for micro_batch in range(accumulation):
                piece = part[step * accumulation + micro_batch]
                assert piece.step == step
                assert len(piece.x_0) == 24 // world_size // accumulation
                seen |= dict(zip(piece.places, piece.labels.tolist(), strict=True))
        assert [seen[place] for place in range(24)] == batch.labels.tolist()


def test_batches_are_pieces_of_one_endless_stream():
    stream = np.concatenate([micro_batches()[step].labels for step in range(25)])
    assert all(sorted(epoch) == list(range(50)) for epoch in stream.reshape(-1, 50).tolist())


def test_a_batch_holds_the_images_that_it_names():
    batch = micro_batches()[2]
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
        for rows in in_order(mine, size=2):
            batch = read(numbered(10), rows)
            assert batch.labels.tolist() == list(batch.places)
            seen += batch.places
    assert seen == list(range(10))


def test_digits_are_the_real_ones_and_every_fifth_is_held_out():
    digits = Digits()
    assert digits.image_shape == (1, 8, 8)
    assert (len(digits.data_set.train), len(digits.data_set.validation)) == (1437, 360)
    assert digits.data_set.classes == [str(i) for i in range(10)]
    assert np.bincount(digits.data_set.train.labels, minlength=10).min() > 100
    assert digits.data_set.train.images.max() == 255
    rows = [
        image.tobytes()
        for part in (digits.data_set.train, digits.data_set.validation)
        for image in part.images
    ]
    assert len(set(rows)) == 1797  # no image is in both parts
    assert digits.fingerprint == Digits(batch_size=8).fingerprint


def test_the_fingerprint_changes_with_a_pixel_a_label_and_a_class():
    a = split(numbered(10), 0.2, None)
    images = a.train.images.copy()
    images[3, 0, 1, 1] += 1
    labels = a.train.labels.copy()
    labels[0] += 1
    others = [
        DataSet(ImageSet(images, a.train.labels), a.validation),
        DataSet(ImageSet(a.train.images, labels), a.validation),
        DataSet(a.train, a.validation, ["x"]),
    ]
    assert len({a.fingerprint(), *(other.fingerprint() for other in others)}) == 4


def test_a_split_leaves_something_to_train_on():
    assert len(split(numbered(1), 0.5, None).train) == 1
    with pytest.raises(ValueError, match="validation_fraction"):
        split(numbered(3), 1.0, None)
