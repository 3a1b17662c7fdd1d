"""From the set to the device: gathered there or read by workers, the same batches; what is changed there."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm.data import module
from ddpm.data.augmentation import Augmentation, normalize
from ddpm.data.images import DataSet, Images
from ddpm.data.module import Batch, ImageDataModule, MicroBatches, Resident, Rows, read
from ddpm.data.sources.archive import Archive
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.hub import Hub
from ddpm.data.sources.npz import Npz
from ddpm.data.stream import Stream
from ddpm.networks.inputs import NO_LABEL


def numbered(n: int) -> Images:
    """Images [n, 3, 2, 4], none like another."""
    images = np.arange(n * 24).reshape(n, 3, 2, 4) % 251
    return ImageSet(images.astype(np.uint8), np.arange(n) % 5)


class Source(ImageDataModule):
    def __init__(self, **settings: object):
        super().__init__(batch_size=12, seed=3, **settings)

    def read(self) -> DataSet:
        return DataSet(numbered(50), numbered(7), [str(i) for i in range(5)])


def at(
    step: int,
    *,
    training: bool = True,
    rank: int = 0,
    world_size: int = 1,
    accumulation: int = 1,
    **settings: object,
) -> Source:
    """A source in the hands of a trainer at some step."""
    source = Source(**settings)
    source.trainer = SimpleNamespace(
        global_step=step,
        global_rank=rank,
        world_size=world_size,
        accumulate_grad_batches=accumulation,
        training=training,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    return source


def on_device(source: Source, count: int) -> Iterator[Batch]:
    """What the network would see."""
    loader = source.train_dataloader() if source.trainer.training else source.val_dataloader()
    for batch, _ in zip(loader, range(count), strict=False):
        batch = source.transfer_batch_to_device(batch, torch.device("cpu"), 0)
        yield source.on_after_batch_transfer(batch, 0)


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
def test_a_device_without_an_image_to_validate_on_takes_part_all_the_same(device_share: int):
    """Another would wait for it."""
    seen = []
    for rank in range(9):
        source = at(0, training=False, rank=rank, world_size=9, device_share=device_share)
        [batch] = on_device(source, 9)
        assert batch.x_0.shape[1:] == (3, 2, 4)
        seen.append(list(batch.places))
    assert [] in seen
    assert sorted(place for places in seen for place in places) == list(range(7))


def test_without_validation_images_nobody_validates():
    source = at(0, training=False)
    source.data_set = DataSet(numbered(50), numbered(50).subset(slice(0)), [str(i) for i in range(5)])
    assert list(source.val_dataloader()) == []


def test_residents_hand_over_no_images():
    source = at(0, device_share=1, num_workers=2)
    batch = next(iter(source.train_dataloader()))
    assert isinstance(batch, Rows)
    assert source.train_dataloader().num_workers == 0
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
    source = at(0, device_share=1)
    list(on_device(source, 1))
    assert source._on_device
    source.teardown("fit")
    assert not source._on_device


def test_what_lives_elsewhere_is_copied_whole():
    """The way of devices other than the CPU, gone on the CPU's memory."""
    images = numbered(9000)
    there = Resident(images, torch.device("meta"))
    assert there.images.shape == (9000, 3, 2, 4)
    here = Resident(images, torch.device("cpu"))
    rows = Rows(torch.tensor([5, 0, 8999]), 3, 6)
    gathered, expected = here.gather(rows), read(images, rows)
    assert torch.equal(gathered.x_0, expected.x_0)
    assert torch.equal(gathered.labels, expected.labels)
    assert gathered[2:] == expected[2:] == (3, 6)


def test_a_resident_of_the_cpu_is_no_copy():
    images = numbered(9)
    assert Resident(images, torch.device("cpu")).images.data_ptr() == images.images.ctypes.data


def test_rows_asked_for_together_are_those_asked_for_alone():
    batches = MicroBatches(numbered(50), batch_size=24, seed=3, rank=1, world_size=2, accumulation=3)
    for index, rows in enumerate(batches.rows(0, 40)):
        alone = batches.rows(index, 1)[0]
        np.testing.assert_array_equal(rows.indices, alone.indices)
        assert rows[1:] == alone[1:]


def mapped(path: Path, images: Images) -> Images:
    images.images.tofile(path)
    return ImageSet(np.memmap(path, np.uint8, "r", shape=images.images.shape), images.labels)


def test_a_map_is_read_like_an_array(tmp_path: Path):
    indices = np.random.RandomState(0).randint(0, 50, 77)
    found, expected = mapped(tmp_path / "x", numbered(50)).copy(indices), numbered(50).subset(indices)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert type(found.images) is np.ndarray


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_what_is_read_of_a_map(tmp_path: Path):
    images = np.zeros((20_000, 3, 32, 32), np.uint8)
    images = mapped(tmp_path / "x", ImageSet(images))
    del images

    def held() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024

    before = held()
    for rows in np.random.RandomState(0).permutation(20_000).reshape(-1, 100):
        images.copy(rows)
    assert held() - before < 35 << 20  # of 61 MB


def bytes_(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (n, 3, 4, 5)).astype(np.uint8))


def test_normalizing():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    x_0 = normalize(levels)
    assert x_0.dtype == torch.float32
    assert (x_0.min(), x_0.max()) == (-1, 1)
    torch.testing.assert_close(((x_0 + 1) * 127.5).round().byte(), levels)


def test_half_are_mirrored_and_which_depends_on_seed_step_and_place():
    images = bytes_(400)
    flip = Augmentation(horizontal_flip=True, seed=0)
    x_0 = flip(images, 3, range(400))
    mirrored = (x_0 == normalize(images).flip(-1)).flatten(1).all(1)
    assert torch.equal(x_0[~mirrored], normalize(images)[~mirrored])
    assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(flip(images[37:90], 3, range(37, 90)), x_0[37:90])
    assert not torch.equal(flip(images, 4, range(400)), x_0)
    assert not torch.equal(Augmentation(horizontal_flip=True, seed=1)(images, 3, range(400)), x_0)


def test_dequantizing_fills_each_level_evenly():
    images = bytes_(300)
    dequantize = Augmentation(dequantize=True, seed=0)
    x_0 = dequantize(images, 3, range(300))
    assert x_0.dtype == torch.float32
    noise = (x_0 + 1) * 128 - images
    assert -1e-4 < float(noise.min()) < 0.01
    assert 0.99 < float(noise.max()) < 1 + 1e-4
    assert abs(float(noise.mean()) - 0.5) < 0.01
    assert float(x_0.min()) >= -1
    assert float(x_0.max()) <= 1
    assert torch.equal(dequantize(images[16:50], 3, range(16, 50)), x_0[16:50])
    assert not torch.equal(dequantize(images, 4, range(300)), x_0)


def test_only_training_is_changed():
    settings = {"horizontal_flip": True, "dequantize": True, "label_drop": 1.0}
    [batch] = on_device(at(0, training=False, **settings), 8)
    assert batch.labels.tolist() == numbered(7).labels.tolist()
    assert torch.equal(batch.x_0, normalize(torch.from_numpy(numbered(7).images)))
    plain, changed = (next(on_device(at(0, **s), 1)).x_0 for s in ({}, settings))
    assert not torch.allclose(plain, changed, atol=0.015)  # more than dequantizing alone


def withheld(label_drop: float, step: int, places: range, seed: int = 0) -> torch.Tensor:
    """bool [B]: of which places the label is withheld."""
    labels = torch.arange(len(places)) % 5
    shown = Augmentation(label_drop=label_drop, seed=seed).drop_labels(labels, step, places)
    assert shown.dtype == torch.int64
    assert torch.equal(shown[shown != NO_LABEL], labels[shown != NO_LABEL])
    return shown == NO_LABEL


def test_a_share_of_the_labels_is_withheld_and_of_which_depends_on_seed_step_and_place():
    many = torch.stack([withheld(0.1, step, range(96)) for step in range(200)]).float()
    n, p = many.numel(), 0.1
    assert abs(float(many.sum()) - n * p) < 4 * (n * p * (1 - p)) ** 0.5
    assert 0.5 < float(many.sum(1).var()) / (96 * p * (1 - p)) < 1.5  # 96 if a batch were dropped whole
    assert 0.5 < float(many.sum(0).var()) / (200 * p * (1 - p)) < 1.5
    assert torch.equal(withheld(0.1, 3, range(37, 90)), many[3, 37:90].bool())
    assert not torch.equal(withheld(0.1, 3, range(96), seed=1), many[3].bool())
    assert not withheld(0.0, 3, range(96)).any()
    assert withheld(1.0, 3, range(96)).all()


def test_flips_and_withheld_labels_are_drawn_apart():
    images = bytes_(2000)
    mirrored = (
        (Augmentation(horizontal_flip=True, seed=0)(images, 3, range(2000)) != normalize(images))
        .flatten(1)
        .any(1)
    )
    both = float((mirrored & withheld(0.5, 3, range(2000))).float().mean())
    assert abs(both - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5


@pytest.mark.parametrize("device_share", [0, 1])
def test_every_split_of_a_batch_withholds_the_same_labels(device_share: int):
    def labels(world_size: int, accumulation: int) -> dict[tuple[int, int], int]:
        parts = {"world_size": world_size, "accumulation": accumulation, "device_share": device_share}
        return {
            (batch.step, place): label
            for rank in range(world_size)
            for batch in on_device(at(4, rank=rank, label_drop=0.3, **parts), 8 * accumulation)
            for place, label in zip(batch.places, batch.labels.tolist(), strict=True)
        }

    whole = labels(1, 1)
    assert 0 < sum(label == NO_LABEL for label in whole.values()) < len(whole) == 8 * 12
    assert labels(2, 1) == labels(1, 2) == labels(2, 3) == whole


@pytest.mark.parametrize(
    ("source", "arguments"),
    [
        (Digits, ()),
        (Folder, ("p", 8)),
        (Archive, ("p", 8)),
        (Npz, ("p",)),
        (Hub, ("name",)),
        (Stream, ("p", 8)),
    ],
)
def test_every_source_hands_its_settings_on(source: type[ImageDataModule], arguments: tuple):
    plain, changed = source(*arguments), source(*arguments, dequantize=True, label_drop=0.25, num_workers=5)
    assert (plain.augmentation.dequantize, plain.augmentation.label_drop) == (False, 0.0)
    assert (changed.augmentation.dequantize, changed.augmentation.label_drop) == (True, 0.25)
    assert changed.num_workers == 5


def test_labels_that_are_not_there_cannot_be_withheld():
    class Unlabelled(Source):
        def read(self) -> DataSet:
            return DataSet(ImageSet(numbered(5).images), ImageSet(numbered(2).images))

    assert Unlabelled().data_set.classes is None
    with pytest.raises(ValueError, match=r"data\.label_drop=0\.1.*no labels"):
        _ = Unlabelled(label_drop=0.1).data_set


def test_settings_that_cannot_be_are_refused_at_once():
    for settings in (
        {"device_share": 1.1},
        {"device_share": -0.1},
        {"num_workers": -1},
        {"label_drop": 1.1},
        {"label_drop": -0.1},
    ):
        with pytest.raises(ValueError, match=rf"data\.{next(iter(settings))}="):
            Source(**settings)
