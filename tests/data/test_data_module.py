"""From a source to the device: gathered there or read by workers, the same batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddpm.app import check
from ddpm.app.arguments import read as read_words
from ddpm.app.build import build_data
from ddpm.app.command_line import checked
from ddpm.data import module
from ddpm.data.augmentation import normalize
from ddpm.data.batches import Batch, BatchIndices
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.loading import ImagesOnDevice, read
from ddpm.data.module import ImageDataModule
from ddpm.data.sources import Source
from ddpm.errors import UsageError
from ddpm.networks.inputs import NO_LABEL


def numbered(n: int) -> ImageSet:
    """Images [n, 3, 2, 4], none like another."""
    images = np.arange(n * 24).reshape(n, 3, 2, 4) % 251
    return ImageSet(images.astype(np.uint8), np.arange(n) % 5)


class Numbered:
    """A source of images in memory."""

    def read(self) -> DataSet:
        return DataSet(numbered(50), numbered(7), [str(i) for i in range(5)])


class Windowed:
    """The same, of which parts are shown."""

    def read(self) -> DataSet:
        return replace(Numbered().read(), window=(1, 3))


class Unlabelled:
    def read(self) -> DataSet:
        return DataSet(ImageSet(numbered(5).images), ImageSet(numbered(2).images))


def at(
    step: int,
    *,
    training: bool = True,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    source: Source | None = None,
    **settings: Any,
) -> ImageDataModule:
    """A data module in the hands of a trainer at some step."""
    data = ImageDataModule(source or Numbered(), batch_size=12, seed=3, **settings)
    data.trainer = SimpleNamespace(
        global_step=step,
        global_rank=rank,
        world_size=world_size,
        num_nodes=1,
        accumulate_grad_batches=accumulation,
        training=training,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return data


def on_device(data: ImageDataModule, count: int) -> Iterator[Batch]:
    """What the network would see."""
    loader = data.train_dataloader() if data.trainer.training else data.val_dataloader()
    for batch, _ in zip(loader, range(count), strict=False):
        batch = data.transfer_batch_to_device(batch, torch.device("cpu"), 0)
        yield data.on_after_batch_transfer(batch, 0)


def assert_same(a: Batch, b: Batch) -> None:
    assert torch.equal(a.x_0, b.x_0)
    assert torch.equal(a.labels, b.labels)
    assert (a.step, a.first, a.x_0.dtype) == (b.step, b.first, torch.float32)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("rank", "world_size", "accumulation"), [(0, 1, 1), (1, 2, 3)])
def test_residents_and_workers_give_the_same_batches(
    training: bool, rank: int, world_size: int, accumulation: int
):
    parts = {"rank": rank, "world_size": world_size, "accumulation": accumulation, "training": training}
    resident = list(on_device(at(4, device_share=1, horizontal_flip=True, **parts), 8))
    assert len(resident) == (8 if training else 1)
    assert [batch.step for batch in resident] == [4 + i // accumulation for i in range(8)] or not training
    for num_workers in (0, 2):
        from_workers = on_device(
            at(4, device_share=0, num_workers=num_workers, horizontal_flip=True, **parts), 8
        )
        for a, b in zip(resident, from_workers, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("device_share", [0, 1])
def test_every_split_of_a_batch_shows_the_same_parts_of_images(device_share: int):
    def shown(step: int, steps: int, **parts: int) -> dict[tuple[int, int], bytes]:
        accumulation, world_size = parts.get("accumulation", 1), parts.get("world_size", 1)
        return {
            (batch.step, index): image.numpy().tobytes()
            for rank in range(world_size)
            for batch in on_device(
                at(step, rank=rank, source=Windowed(), device_share=device_share, num_workers=0, **parts),
                steps * accumulation,
            )
            for index, image in zip(batch.indices, batch.x_0, strict=True)
        }

    whole = shown(4, 6)
    assert len(whole) == 6 * 12
    assert shown(4, 6, world_size=2, accumulation=3) == shown(4, 6, accumulation=2) == whole
    later = {place: image for place, image in whole.items() if place[0] >= 7}
    assert shown(7, 3) == later, "a run that goes on from step 7"


@pytest.mark.parametrize("num_workers", [0, 2])
def test_parts_are_shown_in_training_and_the_middle_elsewhere(num_workers: int):
    settings = {"source": Windowed(), "num_workers": num_workers}
    for device_share in (0, 1):
        [batch] = on_device(at(0, training=False, device_share=device_share, **settings), 8)
        middle = numbered(7).images[:, :, :1, :3]
        assert torch.equal(batch.x_0, normalize(torch.from_numpy(middle)))
    data = at(0, device_share=0, **settings)
    parts = torch.cat([batch.x_0 for batch in on_device(data, 20)])
    assert parts.shape[1:] == data.image_shape == (3, 1, 3)
    assert data.facts["window"] == [1, 3]
    whole = normalize(torch.from_numpy(numbered(50).images))
    every = {tuple(image[:, y : y + 1, x : x + 3].flatten().tolist()) for image in whole for y in (0, 1)
             for x in (0, 1)}  # fmt: skip
    found = {tuple(part.flatten().tolist()) for part in parts}
    assert found <= every
    assert len(found) > len(every) / 2
    assert data.data_set.validation.image_shape == (3, 1, 3)


class Stored:
    """Stands for a condition that `Paireds` reads."""

    typed = "data.condition.path=B"


@dataclass(frozen=True)
class Paireds:
    """x_0 of one channel, its condition brighter by 100, of which parts are shown; and two numbers."""

    condition: Stored | None = None

    def read(self) -> DataSet:
        x_0 = numbered(50).images[:, :1] // 2
        vectors = np.stack([x_0[:, 0, 0, 0], np.full(50, 7)], 1).astype(np.float32)
        whole = ImageSet(np.concatenate([x_0, x_0 + 100], 1), vectors=vectors)
        train, held_out = whole.subset(slice(43)), whole.subset(slice(43, 50))
        return DataSet(train, held_out, window=(1, 2), condition_channels=1)


@pytest.mark.parametrize("training", [True, False])
def test_a_condition_is_flipped_and_cut_as_its_image_wherever_the_set_lives(training: bool):
    found = []
    for settings in ({"device_share": 1}, {"device_share": 0, "num_workers": 2}):
        data = at(
            4, training=training, source=Paireds(), condition=Stored(), horizontal_flip=True, **settings
        )
        assert data.lives_on_device == (settings["device_share"] == 1)
        found.append(list(on_device(data, 2)))
        assert data.condition_sizes == (1, 2)
        known = data.about_condition
    for resident, read_by_worker in zip(*found, strict=True):
        assert resident.x_0.shape == (len(resident.x_0), 1, 1, 2)
        torch.testing.assert_close(
            resident.condition.image - resident.x_0, torch.full_like(resident.x_0, 100 / 127.5)
        )
        for one, other in zip(resident.condition, read_by_worker.condition, strict=True):
            assert torch.equal(one, other)
        assert torch.equal(resident.x_0, read_by_worker.x_0)
        assert not resident.condition.vector[:, 1].any()  # what is the same for all images is 0
    trained_on = Paireds().read().train.vectors[:, 0]
    assert known["mean"] == pytest.approx([trained_on.mean(), 7])
    assert known["std"] == pytest.approx([trained_on.std(), 1])
    if not training:
        held_out = Paireds().read().validation.vectors[:, 0]
        seen = found[0][0].condition.vector[:, 0].numpy()
        np.testing.assert_allclose(seen, (held_out - trained_on.mean()) / trained_on.std(), rtol=1e-5)


@pytest.mark.parametrize("device_share", [0, 1])
def test_a_device_without_an_image_to_validate_on_takes_part_all_the_same(device_share: int):
    """Another would wait for it."""
    seen = []
    for rank in range(9):
        data = at(0, training=False, rank=rank, world_size=9, device_share=device_share)
        [batch] = on_device(data, 9)
        assert batch.x_0.shape[1:] == (3, 2, 4)
        seen.append(list(batch.indices))
    assert [] in seen
    assert sorted(index for indices in seen for index in indices) == list(range(7))


def test_without_validation_images_nobody_validates():
    data = at(0, training=False)
    data.data_set = DataSet(numbered(50), numbered(50).subset(slice(0)), [str(i) for i in range(5)])
    assert list(data.val_dataloader()) == []


def test_residents_hand_over_no_images():
    data = at(0, device_share=1, num_workers=2)
    batch = next(iter(data.train_dataloader()))
    assert isinstance(batch, BatchIndices)
    assert data.train_dataloader().num_workers == 0
    assert isinstance(next(iter(at(0, device_share=0).train_dataloader())), Batch)


def test_only_what_fits_lives_on_the_device(monkeypatch: pytest.MonkeyPatch):
    needed = (50 + 7) * 24
    monkeypatch.setattr(module, "memory_of", lambda device: 10 * needed)
    assert at(0, device_share=0.1).lives_on_device
    assert not at(0, device_share=0.0999).lives_on_device
    assert not at(0, device_share=0).lives_on_device


def test_the_memory_of_this_machine_is_known_and_that_of_others_is_none():
    assert 1 << 28 < module.memory_of(torch.device("cpu")) < 1 << 50
    assert module.memory_of(torch.device("meta")) == 0


def test_memory_is_freed():
    data = at(0, device_share=1)
    list(on_device(data, 1))
    assert data._on_device
    data.teardown("fit")
    assert not data._on_device


def test_what_lives_elsewhere_is_copied_whole():
    """The way of devices other than the CPU, gone on the CPU's memory."""
    images = numbered(9000)
    there = ImagesOnDevice(images, torch.device("meta"))
    assert there.images.shape == (9000, 3, 2, 4)
    here = ImagesOnDevice(images, torch.device("cpu"))
    wanted = BatchIndices(torch.tensor([5, 0, 8999]), 3, 6)
    gathered, expected = here.gather(wanted), read(images, wanted)
    assert torch.equal(gathered.x_0, expected.x_0)
    assert torch.equal(gathered.labels, expected.labels)
    assert gathered[2:] == expected[2:] == (3, 6, None)


def test_a_resident_of_the_cpu_is_no_copy():
    images = numbered(9)
    assert ImagesOnDevice(images, torch.device("cpu")).images.data_ptr() == images.images.ctypes.data


def test_only_training_is_changed():
    settings = {"horizontal_flip": True, "dequantize": True, "label_drop": 1.0}
    [batch] = on_device(at(0, training=False, **settings), 8)
    assert batch.labels.tolist() == numbered(7).labels.tolist()
    assert torch.equal(batch.x_0, normalize(torch.from_numpy(numbered(7).images)))
    plain, changed = (next(on_device(at(0, **s), 1)).x_0 for s in ({}, settings))
    assert not torch.allclose(plain, changed, atol=0.015)  # more than dequantizing alone


@pytest.mark.parametrize("device_share", [0, 1])
def test_every_split_of_a_batch_withholds_the_same_labels(device_share: int):
    def labels(world_size: int, accumulation: int) -> dict[tuple[int, int], int]:
        parts = {"world_size": world_size, "accumulation": accumulation, "device_share": device_share}
        return {
            (batch.step, index): label
            for rank in range(world_size)
            for batch in on_device(at(4, rank=rank, label_drop=0.3, **parts), 8 * accumulation)
            for index, label in zip(batch.indices, batch.labels.tolist(), strict=True)
        }

    whole = labels(1, 1)
    assert 0 < sum(label == NO_LABEL for label in whole.values()) < len(whole) == 8 * 12
    assert labels(2, 1) == labels(1, 2) == labels(2, 3) == whole


def test_labels_that_are_not_there_cannot_be_withheld():
    assert ImageDataModule(Unlabelled()).data_set.classes is None
    with pytest.raises(ValueError, match=r"data\.label_drop=0\.1.*no labels"):
        _ = ImageDataModule(Unlabelled(), label_drop=0.1).data_set


def test_settings_that_cannot_be_are_refused_at_once():
    for settings in (
        {"batch_size": 0},
        {"device_share": 1.1},
        {"device_share": -0.1},
        {"num_workers": -1},
        {"label_drop": 1.1},
        {"label_drop": -0.1},
    ):
        with pytest.raises(ValueError, match=rf"data\.{next(iter(settings))}="):
            ImageDataModule(Numbered(), **settings)


def test_constructing_reads_nothing_and_reading_happens_once():
    class Counting(Numbered):
        times = 0

        def read(self) -> DataSet:
            self.times += 1
            return super().read()

    data = ImageDataModule(source := Counting())
    assert source.times == 0
    assert (data.image_shape, len(data.fingerprint), data.skipped) == ((3, 2, 4), 16, [])
    assert source.times == 1


def test_without_a_trainer_there_are_no_batches():
    with pytest.raises(RuntimeError, match="datamodule="):
        ImageDataModule(Numbered()).train_dataloader()


@pytest.mark.parametrize(
    ("cores", "world_size", "num_nodes", "expected"),
    [(16, 1, 1, 8), (16, 4, 1, 3), (16, 6, 2, 4), (2, 1, 1, 1), (1, 1, 1, 0), (2, 4, 1, 0)],
)
def test_workers_are_chosen_by_the_cores_of_each_device_and_told_once(
    cores: int,
    world_size: int,
    num_nodes: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(module, "available_cores", lambda: cores)
    caplog.set_level("INFO")
    for rank in (0, world_size - 1):
        data = at(0, rank=rank, world_size=world_size, device_share=0)
        data.trainer.num_nodes = num_nodes
        assert data.train_dataloader().num_workers == data.val_dataloader().num_workers == expected
    told = [line for line in caplog.messages if "num_workers" in line]
    assert len(told) == (2 if world_size == 1 else 1)
    assert told[0].startswith(f"data.num_workers={expected} ")
    caplog.clear()
    assert at(0, device_share=1).train_dataloader().num_workers == 0  # nothing to tell
    assert at(0, device_share=0, num_workers=3).train_dataloader().num_workers == 3
    assert not caplog.messages


class NoDoubles(TorchDispatchMode):
    """Refuses float64, which some devices do not have."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            assert not (isinstance(value, torch.Tensor) and value.dtype == torch.float64), function
        return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("device_share", [0, 1])
def test_nothing_is_double_on_its_way_to_the_network(training: bool, device_share: int):
    settings = {"horizontal_flip": True, "dequantize": True, "label_drop": 0.5, "num_workers": 0}
    data = at(0, training=training, device_share=device_share, **settings)
    with NoDoubles():
        batches = list(on_device(data, 3))
    assert batches
    with pytest.raises(AssertionError), NoDoubles():
        batches[0].x_0.double()


def test_a_source_of_ones_own_package_is_a_class_and_a_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its own keys and those of the data module stand side by side, and others are refused."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "extensions"))
    yaml = "defaults: [/loading, _self_]\n_target_: own_source.Gradients\ncount: 40\nhorizontal_flip: true\n"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(yaml)

    def config(*overrides: str) -> dict[str, Any]:
        words = ["--config-dir", str(tmp_path), "data=mine", "allow_targets=[own_source]", *overrides]
        found = checked(read_words(words), "train")[0][0].values
        check.check_foreign_targets(found)
        return found

    data = build_data(config("++data.size=4", "data.batch_size=8", "seed=5"))
    assert data.image_shape == (1, 4, 4)
    assert (data.batch_size, data.augmentation.horizontal_flip, data.device_share, data.seed) == (
        8,
        True,
        0.25,
        5,
    )
    assert len(data.data_set.train) == 36
    for typed, message in (
        ("++data.sizes=4", r"data\.sizes: there is no such key; did you mean data\.size"),
        ("++data.batchsize=4", r"data\.batchsize: there is no such key; did you mean data\.batch_size"),
        ("data.batch_size=many", r"data\.batch_size=many: must be a whole number"),
        ("++data.seed=3", r"data\.seed: "),
    ):
        with pytest.raises(UsageError, match=message):
            config(typed)
