"""From the set to the device: gathered there or read by workers, the same batches; what is changed there."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm.data import module
from ddpm.data.augmentation import Augmentation, normalize
from ddpm.data.module import Batch, ImageDataModule, MicroBatches, Resident, Rows, read
from ddpm.data.pictures import DataSet, Pictures


def numbered(n: int) -> Pictures:
    """Pictures [n, 3, 2, 4], none like another."""
    images = np.arange(n * 24).reshape(n, 3, 2, 4) % 251
    return Pictures(images.astype(np.uint8), np.arange(n) % 5)


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


def test_residents_hand_over_no_pictures():
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
    pictures = numbered(9000)
    there = Resident(pictures, torch.device("meta"))
    assert there.images.shape == (9000, 3, 2, 4)
    here = Resident(pictures, torch.device("cpu"))
    rows = Rows(torch.tensor([5, 0, 8999]), 3, 6)
    gathered, expected = here.gather(rows), read(pictures, rows)
    assert torch.equal(gathered.x_0, expected.x_0)
    assert torch.equal(gathered.labels, expected.labels)
    assert gathered[2:] == expected[2:] == (3, 6)


def test_a_resident_of_the_cpu_is_no_copy():
    pictures = numbered(9)
    assert Resident(pictures, torch.device("cpu")).images.data_ptr() == pictures.images.ctypes.data


def test_rows_asked_for_together_are_those_asked_for_alone():
    batches = MicroBatches(numbered(50), batch_size=24, seed=3, rank=1, world_size=2, accumulation=3)
    for index, rows in enumerate(batches.rows(0, 40)):
        alone = batches.rows(index, 1)[0]
        np.testing.assert_array_equal(rows.indices, alone.indices)
        assert rows[1:] == alone[1:]


def mapped(path: Path, pictures: Pictures) -> Pictures:
    pictures.images.tofile(path)
    return Pictures(np.memmap(path, np.uint8, "r", shape=pictures.images.shape), pictures.labels)


def test_a_map_is_read_like_an_array(tmp_path: Path):
    indices = np.random.RandomState(0).randint(0, 50, 77)
    found, expected = mapped(tmp_path / "x", numbered(50)).copy(indices), numbered(50).subset(indices)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert type(found.images) is np.ndarray


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_does_not_grow_with_what_is_read_of_a_map(tmp_path: Path):
    images = np.zeros((20_000, 3, 32, 32), np.uint8)
    pictures = mapped(tmp_path / "x", Pictures(images))
    del images

    def held() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Rss:")) * 1024

    before = held()
    for rows in np.random.RandomState(0).permutation(20_000).reshape(-1, 100):
        pictures.copy(rows)
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
    flip = Augmentation(horizontal_flip=True, dequantize=False, seed=0)
    x_0 = flip(images, 3, range(400))
    mirrored = (x_0 == normalize(images).flip(-1)).flatten(1).all(1)
    assert torch.equal(x_0[~mirrored], normalize(images)[~mirrored])
    assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(flip(images[37:90], 3, range(37, 90)), x_0[37:90])
    assert not torch.equal(flip(images, 4, range(400)), x_0)
    assert not torch.equal(
        Augmentation(horizontal_flip=True, dequantize=False, seed=1)(images, 3, range(400)), x_0
    )


def test_dequantizing_fills_each_level_evenly():
    images = bytes_(300)
    dequantize = Augmentation(horizontal_flip=False, dequantize=True, seed=0)
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
    settings = {"horizontal_flip": True, "dequantize": True}
    [batch] = on_device(at(0, training=False, **settings), 8)
    assert torch.equal(batch.x_0, normalize(torch.from_numpy(numbered(7).images)))
    plain, changed = (next(on_device(at(0, **s), 1)).x_0 for s in ({}, settings))
    assert not torch.allclose(plain, changed, atol=0.015)  # more than dequantizing alone


def test_settings_that_cannot_be_are_refused_at_once():
    for settings in ({"device_share": 1.1}, {"device_share": -0.1}, {"num_workers": -1}):
        with pytest.raises(ValueError, match=rf"data\.{next(iter(settings))}="):
            Source(**settings)
