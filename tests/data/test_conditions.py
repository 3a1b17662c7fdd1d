"""Conditions that are made of images, and those that a set holds beside them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.data.batches import Batch
from ddpm.data.conditions.downsampled import Downsampled
from ddpm.data.conditions.masked import Masked
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.condition import Condition
from ddpm.sampling.conditions import HeldOut


class Made:
    """A source of 20 images of 2 channels, the second of which is a condition, and 3 numbers each."""

    def read(self) -> DataSet:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (20, 2, 4, 4), dtype=np.uint8)
        vectors = rng.normal(5, 2, (20, 3)).astype(np.float32)
        sets = [ImageSet(images[part], None, vectors[part]) for part in (slice(0, 16), slice(16, 20))]
        return DataSet(*sets, condition_channels=1)


class Stored:
    """Stands for a kind of condition that the data hold."""

    def image_channels(self, channels: int) -> int:
        return 1


def training(data: ImageDataModule, *, training: bool = True) -> ImageDataModule:
    device = torch.device("cpu")
    trainer: Any = SimpleNamespace(
        training=training,
        strategy=SimpleNamespace(root_device=device),
        global_rank=0,
        world_size=1,
        accumulate_grad_batches=1,
        global_step=0,
    )
    data.trainer = trainer
    return data


def test_a_small_image_has_the_means_of_squares_and_comes_back_as_large():
    x_0 = torch.rand(2, 3, 8, 12) * 2 - 1
    conditioning = Downsampled(4)
    small = conditioning.reduced(x_0)
    assert torch.allclose(small[0, 0, 0, 0], x_0[0, 0, :4, :4].mean())
    assert torch.allclose(small[1, 2, 1, 2], x_0[1, 2, 4:, 8:].mean())
    image = conditioning(x_0, torch.zeros(2, 0)).image
    assert image is not None
    assert image.shape == x_0.shape
    assert conditioning.enlarged(torch.full((1, 1, 2, 3), 0.5)).unique().item() == pytest.approx(0.5)
    assert image.abs().max() <= 1


def test_a_factor_must_divide_the_size():
    with pytest.raises(
        ValueError, match=r"data\.condition\.factor=3: does not divide images of 8x8; use 2 or 4"
    ):
        Downsampled(3).check((1, 8, 8))
    with pytest.raises(ValueError, match="at least 2"):
        Downsampled(1)


def test_a_masked_image_is_as_it_was_where_the_mask_says_so_and_grey_elsewhere():
    x_0 = torch.rand(500, 2, 6, 8) + 0.1
    image = Masked(0.5, 0.75)(x_0, torch.rand(500, 4)).image
    assert image is not None
    mask = image[:, 2:]
    assert set(mask.unique().tolist()) == {0, 1}
    assert torch.equal(image[:, :2], x_0 * mask)
    heights, widths = ((1 - mask).amax(d).sum(2)[:, 0] for d in (3, 2))
    assert {3.0, 4.0, 5.0} >= set(heights.tolist()) > {4.0}
    assert {4.0, 5.0, 6.0} == set(widths.tolist())
    assert torch.equal((1 - mask).sum((1, 2, 3)), heights * widths), "a rectangle"
    assert ((1 - mask).sum(0) > 0).all(), "anywhere"
    with pytest.raises(ValueError, match="0 < smallest <= largest <= 1"):
        Masked(0.6, 0.5)


def test_training_masks_differ_by_step_and_those_of_held_out_images_never_do():
    images = torch.from_numpy(Digits().read().train.images[:4])  # type: ignore[union-attr]
    one, other = (training(ImageDataModule(Digits(), condition=Masked(), seed=seed)) for seed in (0, 1))

    def shown(data: ImageDataModule, step: int, first: int = 0) -> torch.Tensor:
        batch = Batch(images[first:], None, step, first)
        condition = data.on_after_batch_transfer(batch, 0).condition
        assert condition is not None
        assert condition.image is not None
        return condition.image

    assert not torch.equal(shown(one, 0), shown(one, 1))
    assert not torch.equal(shown(one, 0), shown(other, 0))
    assert torch.equal(shown(one, 3)[2:], shown(one, 3, first=2)), "by index, however a batch is shared"
    for data in (one, other):
        training(data, training=False)
    assert torch.equal(shown(one, 0), shown(other, 0))
    held_out = one.held_out([1, 0]).condition
    assert held_out is not None
    again = other.held_out([361, 0]).condition
    assert again is not None
    assert torch.equal(held_out.image, again.image)  # type: ignore[arg-type]


def test_held_out_images_in_turn_are_those_of_a_validation_however_they_are_asked_for():
    data = ImageDataModule(Digits(), condition=Masked())
    n = len(data.data_set.validation)
    indices = [*range(n - 3, n + 4), 5, 5, 2, 2 * n + 7, 8]
    shown, alone = data.held_out(indices), [data.held_out([i]) for i in indices]
    for i, one in enumerate(alone):
        assert torch.equal(shown.x_0[i], one.x_0[0])
        assert torch.equal(shown.condition.image[i], one.condition.image[0])  # type: ignore[union-attr,index]
    labels = [one.labels.item() for one in alone]  # type: ignore[union-attr]
    assert labels == shown.labels.tolist() == data.labels_held_out(indices)  # type: ignore[union-attr]


def test_classes_of_what_is_held_out_are_known_without_an_image_in_memory(monkeypatch: pytest.MonkeyPatch):
    data = ImageDataModule(Digits(), condition=Masked())
    expected = data.held_out(range(9)).labels.tolist()  # type: ignore[union-attr]
    monkeypatch.setattr(ImageDataModule, "held_out", None)
    assert HeldOut(data).labels(range(9)) == expected


def test_stored_conditions_are_parted_from_x_0_and_vectors_are_standardised():
    data = training(ImageDataModule(Made(), condition=Stored(), horizontal_flip=True, batch_size=4))
    assert data.image_shape == (1, 4, 4)
    assert data.condition_sizes == (1, 3)
    train = data.data_set.train
    assert isinstance(train, ImageSet)
    batch = data.transfer_batch_to_device(next(iter(data.train_dataloader())), torch.device("cpu"), 0)
    found = data.on_after_batch_transfer(batch, 0)
    assert found.condition is not None
    image, vector = found.condition
    assert found.x_0.shape == image.shape == (4, 1, 4, 4)  # type: ignore[union-attr]
    both = torch.cat([found.x_0, image], dim=1)  # type: ignore[list-item]
    whole = torch.from_numpy(train.images) / 127.5 - 1
    flipped = torch.cat([whole, whole.flip(-1)])
    assert all(((one - flipped).abs().amax((1, 2, 3)) < 1e-6).any() for one in both), "flipped alike"
    about = data.about_condition
    assert about["image_channels"] == 1
    standardised = (torch.from_numpy(train.vectors) - torch.tensor(about["mean"])) / torch.tensor(
        about["std"]
    )
    assert torch.allclose(standardised.mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(standardised.std(0, correction=0), torch.ones(3), atol=1e-5)
    assert all(((one - standardised).abs().amax(1) < 1e-5).any() for one in vector)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "condition"), [(Made(), Stored()), (Digits(), Downsampled(2)), (Digits(), Masked())]
)
def test_dequantizing_leaves_conditions_as_a_validation_shows_them(source: Any, condition: Any):
    plain, spread = (
        training(ImageDataModule(source, condition=condition, dequantize=dequantize))
        for dequantize in (False, True)
    )
    images = plain.data_set.train.copy(np.arange(6))  # type: ignore[union-attr]
    vectors = None if images.vectors is None else Condition(None, torch.from_numpy(images.vectors))
    batch = Batch(torch.from_numpy(images.images), None, 3, 0, vectors)
    one, other = (data.on_after_batch_transfer(batch, 0) for data in (plain, spread))
    assert torch.equal(one.condition.image, other.condition.image)  # type: ignore[union-attr,arg-type]
    noise = (other.x_0 + 1) * 128 - (one.x_0 + 1) * 127.5
    assert -1e-3 < float(noise.min()) < 0.2
    assert 0.8 < float(noise.max()) < 1.001


def test_labels_and_conditions_are_withheld_from_the_same_images():
    settings: dict[str, Any] = {"label_drop": 0.3, "condition_drop": 0.3, "condition": Downsampled(2)}
    data = training(ImageDataModule(Digits(), **settings))
    images = torch.full((2000, 1, 8, 8), 200, dtype=torch.uint8)
    batch = data.on_after_batch_transfer(Batch(images, torch.ones(2000, dtype=torch.int64), 7, 0), 0)
    assert batch.condition is not None
    withheld = batch.condition.image == 0  # type: ignore[union-attr]
    assert torch.equal(withheld.all(3).all(2)[:, 0], batch.labels == -1)  # type: ignore[union-attr]
    assert 0.25 < (batch.labels == -1).float().mean() < 0.35  # type: ignore[union-attr]


def test_what_a_set_holds_beside_its_images_goes_where_they_go():
    images = np.zeros((3, 2, 4, 4), np.uint8)
    whole = ImageSet(images, np.arange(3), np.arange(6, dtype=np.float32).reshape(3, 2))
    chosen = whole.copy(np.array([2, 0]))
    assert chosen.vectors is not None
    assert chosen.vectors.tolist() == [[4, 5], [0, 1]]
    assert whole.centre((2, 2)).vectors is whole.vectors
    other = DataSet(ImageSet(images), whole, condition_channels=1)
    assert DataSet(ImageSet(images), whole).fingerprint != other.fingerprint
    assert len(other.facts["mean"]) == 1
    with pytest.raises(ValueError, match="one at least is left for x_0"):
        DataSet(whole, whole, condition_channels=2)
    with pytest.raises(ValueError, match=r"vectors must be float32 \[3, D\]"):
        ImageSet(images, None, np.zeros((2, 2), np.float32))


def test_a_condition_that_cannot_be_withheld_is_refused():
    with pytest.raises(ValueError, match=r"data\.condition_drop=0\.1: there is no condition to withhold"):
        ImageDataModule(Digits(), condition_drop=0.1)


def test_a_mapped_set_takes_its_vectors_to_other_processes(tmp_path: Path):
    import pickle

    mapped = np.memmap(tmp_path / "images", np.uint8, "w+", shape=(4, 1, 2, 2))
    mapped.flush()
    vectors = np.arange(8, dtype=np.float32).reshape(4, 2)
    images = np.memmap(tmp_path / "images", np.uint8, "r", shape=(4, 1, 2, 2))
    there = pickle.loads(pickle.dumps(ImageSet(images, None, vectors)))
    assert np.array_equal(there.vectors, vectors)
