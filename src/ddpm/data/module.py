"""The LightningDataModule: how a global batch is made of a data set, for any number of devices."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ddpm.data.augmentation import Augmentation, normalize
from ddpm.data.decoding import printable
from ddpm.data.pictures import DataSet, Pictures
from ddpm.random import draws_at
from ddpm.runtime.memory import memory_of

logger = logging.getLogger(__name__)

ORDERED_AT_ONCE = 8192
"""Draws of the order that are computed together, which costs little more than one."""


class Rows(NamedTuple):
    """Which pictures a batch is made of.

    Attributes:
        indices: int64 [B], into the part of the set that the batch is of.
        step: as in `Batch`.
        first: as in `Batch`.
    """

    indices: Tensor | np.ndarray
    step: int
    first: int


class Batch(NamedTuple):
    """A device's part of a global batch, or of the validation set.

    Attributes:
        x_0: [B, C, H, W]; uint8 on its way to the device, then float32 in [-1, 1].
        labels: int64 [B], `NO_LABEL` where one is withheld; None where there are no classes.
        step: the optimizer step that it belongs to, from 0.
        first: place of its first picture in the global batch; index in the validation set.
    """

    x_0: Tensor
    labels: Tensor | None
    step: int
    first: int

    @property
    def places(self) -> range:
        return range(self.first, self.first + len(self.x_0))


class ImageDataModule(LightningDataModule):
    """Base of all data sources. A source says in `read` where its pictures come from; the rest is the same.

    The stream of pictures depends on the seed and the step alone: place i of step s is draw
    s * batch_size + i (see `ddpm.random`), whichever device shows it.

    A set that takes at most `device_share` of the device's memory lives there as bytes, and its batches are
    gathered there. The batches of a larger one are read by worker processes, ahead of time and into pinned
    memory. On a CPU, to live on the device is to stay where it is.

    Args:
        batch_size: pictures an optimizer step, over all devices and micro-batches.
        horizontal_flip: mirror every other picture, at random, in training.
        dequantize: spread each level of brightness over its width by uniform noise, in training.
        label_drop: share of the labels that are withheld from the network in training, in [0, 1].
        device_share: of the device's memory, in [0, 1]; 0 keeps every set off the device.
        num_workers: processes that prepare batches of a set that does not live on the device; 0 prepares them
            in the training process.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        horizontal_flip: bool = False,
        dequantize: bool = False,
        label_drop: float = 0.0,
        device_share: float = 0.25,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} must be at least 1")
        if not 0 <= device_share <= 1:
            raise ValueError(f"data.device_share={device_share} must be in [0, 1]")
        if num_workers < 0:
            raise ValueError(f"data.num_workers={num_workers} must be at least 0")
        if not 0 <= label_drop <= 1:
            raise ValueError(f"data.label_drop={label_drop} must be in [0, 1]")
        self.batch_size = batch_size
        self.horizontal_flip = horizontal_flip
        self.device_share = device_share
        self.num_workers = num_workers
        self.seed = seed
        self.label_drop = label_drop
        self.augmentation = Augmentation(
            horizontal_flip=horizontal_flip, dequantize=dequantize, label_drop=label_drop, seed=seed
        )
        self._on_device: dict[bool, Resident] = {}

    def read(self) -> DataSet:
        """Read the pictures from wherever they are; called once."""
        raise NotImplementedError

    @cached_property
    def data_set(self) -> DataSet:
        """The pictures, read on first use."""
        found = self.read()
        if self.label_drop and found.classes is None:
            raise ValueError(
                f"data.label_drop={self.label_drop}: these pictures have no labels; leave it at 0"
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the pictures and labels, the same on every machine."""
        return self.data_set.fingerprint()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self.data_set.train.images.shape[1:])

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the pictures, in plain containers: see `ddpm.data.pictures.survey`."""
        return self.data_set.facts

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of everything that could not be read and was left out."""
        return self.data_set.skipped

    def write_skipped(self, directory: Path) -> None:
        """List what was left out in `skipped.txt`, a line each; writes nothing where it is nothing."""
        if self.skipped:
            lines = [f"{printable(name)}: {reason}\n" for name, reason in self.skipped]
            (directory / "skipped.txt").write_text("".join(lines))

    def check_shared(self, *, world_size: int, accumulation: int) -> None:
        """Refuse, with ValueError, numbers of devices and micro-batches that a batch cannot be shared by."""
        share(self.batch_size, world_size=world_size, accumulation=accumulation)

    def train_dataloader(self) -> Iterable[Batch | Rows]:
        """Micro-batches of this device from the trainer's current step on, without end."""
        accumulation = self.trainer.accumulate_grad_batches
        micro_batches = MicroBatches(
            self.data_set.train,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            accumulation=accumulation,
        )
        return self._loader(self.data_set.train, From(micro_batches, self.trainer.global_step * accumulation))

    def val_dataloader(self) -> Iterable[Batch | Rows]:
        """This device's part of the validation set, every picture once over all devices."""
        pictures = self.data_set.validation
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        mine = range(len(pictures) * rank // world_size, len(pictures) * (rank + 1) // world_size)
        rows = in_order(mine, size=max(1, self.batch_size // world_size))
        if len(pictures) and not rows:  # a device that took no part would keep the others waiting
            rows = [Rows(np.arange(0), 0, mine.start)]
        return self._loader(pictures, rows) if rows else []

    def _loader(self, pictures: Pictures, rows: "From | list[Rows]") -> DataLoader:
        resident = self.lives_on_device
        num_workers = 0 if resident else self.num_workers
        return DataLoader(
            Reader(None if resident else pictures),
            batch_size=None,
            sampler=rows,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=self._device.type == "cuda",
            persistent_workers=num_workers > 0,
        )

    @property
    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device

    @property
    def lives_on_device(self) -> bool:
        """Whether the set takes at most its share of the memory of the trainer's device."""
        needed = self.data_set.train.images.nbytes + self.data_set.validation.images.nbytes
        return needed <= self.device_share * memory_of(self._device)

    def transfer_batch_to_device(
        self, batch: Batch | Rows, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch, or gather it from the set if that lives there."""
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if isinstance(batch, Batch):
            return batch
        training = bool(self.trainer.training)
        if training not in self._on_device:
            part = self.data_set.train if training else self.data_set.validation
            self._on_device[training] = Resident(part, device)
        return self._on_device[training].gather(batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: bytes to [-1, 1], and the random changes of training."""
        if not self.trainer.training:
            return batch._replace(x_0=normalize(batch.x_0))
        x_0 = self.augmentation(batch.x_0, batch.step, batch.places)
        if batch.labels is None:
            return batch._replace(x_0=x_0)
        return batch._replace(
            x_0=x_0, labels=self.augmentation.drop_labels(batch.labels, batch.step, batch.places)
        )

    def teardown(self, stage: str) -> None:
        """Free the device's memory."""
        self._on_device.clear()


def share(batch_size: int, *, world_size: int, accumulation: int) -> int:
    """How many pictures of a global batch one device sees at once.

    Raises:
        ValueError: where the batch cannot be divided evenly; names the nearest sizes that can.
    """
    parts = world_size * accumulation
    if batch_size % parts:
        below = batch_size // parts * parts
        nearest = " or ".join(str(size) for size in (below, below + parts) if size)
        micro = f" x {accumulation} micro-batches" if accumulation > 1 else ""
        raise ValueError(
            f"data.batch_size={batch_size} is the global batch, and {world_size} devices{micro} do not "
            f"divide it; use {nearest}"
        )
    return batch_size // parts


class MicroBatches:
    """The endless stream of one device's micro-batches; number i is a function of i alone."""

    def __init__(
        self, pictures: Pictures, *, batch_size: int, seed: int, rank: int, world_size: int, accumulation: int
    ):
        self.pictures = pictures
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.size = share(batch_size, world_size=world_size, accumulation=accumulation)

    def __getitem__(self, index: int) -> Batch:
        return read(self.pictures, self.rows(index, 1)[0])

    def rows(self, index: int, count: int) -> list[Rows]:
        """Which pictures micro-batches `index` ... `index + count - 1` are made of."""
        step, micro_batch = np.divmod(np.arange(index, index + count), self.accumulation)
        first = (micro_batch * self.world_size + self.rank) * self.size
        k = (step * self.batch_size + first)[:, None] + np.arange(self.size)
        indices = draws_at(self.seed, len(self.pictures), k.ravel()).reshape(k.shape)
        return [Rows(*row) for row in zip(indices, step.tolist(), first.tolist(), strict=True)]


class From(Sampler[Rows]):
    """Micro-batches from one on, without end: has no length, so that the trainer counts steps, not epochs."""

    def __init__(self, micro_batches: MicroBatches, start: int):
        self.micro_batches = micro_batches
        self.start = start

    def __iter__(self) -> Iterator[Rows]:
        index = self.start
        count = max(1, ORDERED_AT_ONCE // self.micro_batches.size)
        while True:
            yield from self.micro_batches.rows(index, count)
            index += count


def in_order(mine: range, *, size: int) -> list[Rows]:
    """Pictures `mine` of a set, `size` at a time."""
    starts = range(mine.start, mine.stop, size)
    return [Rows(np.arange(start, min(start + size, mine.stop)), 0, start) for start in starts]


class Reader(Dataset):
    """Reads batches from a set; hands on which pictures they are where the set is None."""

    def __init__(self, pictures: Pictures | None):
        self.pictures = pictures

    def __getitem__(self, rows: Rows) -> Batch | Rows:
        if self.pictures is None:
            return rows._replace(indices=torch.from_numpy(rows.indices))
        return read(self.pictures, rows)


class Resident:
    """Pictures that live on a device. On a CPU they stay where they are, in memory or mapped."""

    def __init__(self, pictures: Pictures, device: torch.device):
        if device.type == "cpu":
            with warnings.catch_warnings(action="ignore"):  # that the map is read-only, which we respect
                self.images = torch.from_numpy(pictures.images)
        else:
            self.images = torch.empty(pictures.images.shape, dtype=torch.uint8, device=device)
            for rows in in_order(range(len(pictures)), size=4096):
                part = pictures.images[rows.first : rows.first + len(rows.indices)]
                self.images[rows.first : rows.first + len(part)] = torch.from_numpy(np.array(part))
            pictures.let_go()
        labels = None if pictures.labels is None else np.array(pictures.labels)
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)

    def gather(self, rows: Rows) -> Batch:
        """The batch that these rows, on this device, are."""
        labels = None if self.labels is None else self.labels[rows.indices]
        return Batch(self.images[rows.indices], labels, rows.step, rows.first)


def read(pictures: Pictures, rows: Rows) -> Batch:
    """The batch that these rows of a set are, in memory of its own."""
    chosen = pictures.copy(np.asarray(rows.indices))
    labels = None if chosen.labels is None else torch.from_numpy(chosen.labels)
    return Batch(torch.from_numpy(chosen.images), labels, rows.step, rows.first)


def _as_it_is(batch: Batch | Rows) -> Batch | Rows:
    return batch
