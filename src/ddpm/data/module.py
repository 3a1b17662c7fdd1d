"""The LightningDataModule: how a global batch is made of a data set, for any number of devices."""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ddpm.data.order import draws
from ddpm.data.pictures import DataSet, Pictures
from ddpm.training.randomness import Purpose, Stream


class Batch(NamedTuple):
    """A device's part of a global batch, or of the validation set.

    Attributes:
        x_0: [B, C, H, W]; uint8 on its way to the device, then float32 in [-1, 1].
        labels: int64 [B] or None.
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
    """Base of all data sources. A source says in `read` where its pictures come from; the rest is the same for all.

    The stream of pictures depends on the seed and the step alone: place i of step s is draw s * batch_size + i (see
    `ddpm.data.order`), whichever device shows it.

    Args:
        batch_size: pictures an optimizer step, over all devices and micro-batches.
        horizontal_flip: mirror every other picture, at random, in training.
        num_workers: processes that prepare batches; 0 prepares them in the training process.
        seed: of the run.
    """

    def __init__(
        self, *, batch_size: int, horizontal_flip: bool = False, num_workers: int = 0, seed: int = 0
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} must be at least 1")
        self.batch_size = batch_size
        self.horizontal_flip = horizontal_flip
        self.num_workers = num_workers
        self.seed = seed

    def read(self) -> DataSet:
        """Read the pictures from wherever they are; called once."""
        raise NotImplementedError

    @cached_property
    def data_set(self) -> DataSet:
        """The pictures, read on first use."""
        return self.read()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the pictures and labels, the same on every machine."""
        return self.data_set.fingerprint()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self.data_set.train.images.shape[1:])

    def train_dataloader(self) -> DataLoader:
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
        return self._loader(micro_batches, From(self.trainer.global_step * accumulation))

    def val_dataloader(self) -> DataLoader | list:
        """This device's part of the validation set, every picture once over all devices."""
        pictures = self.data_set.validation
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        mine = range(len(pictures) * rank // world_size, len(pictures) * (rank + 1) // world_size)
        chunks = Chunks(pictures, mine, size=max(1, self.batch_size // world_size))
        return self._loader(chunks, range(len(chunks))) if len(mine) else []

    def _loader(self, batches: Dataset, order: "From | range") -> DataLoader:
        return DataLoader(
            batches,
            batch_size=None,
            sampler=order,
            num_workers=self.num_workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: bytes to [-1, 1], and the random flips of training."""
        x_0 = batch.x_0.float() / 127.5 - 1
        if self.horizontal_flip and self.trainer.training:
            u = Stream(self.seed, Purpose.FLIP, x_0.device).uniform(batch.step, batch.places)
            x_0 = torch.where((u < 0.5).view(-1, 1, 1, 1), x_0.flip(-1), x_0)
        return batch._replace(x_0=x_0)


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
            f"data.batch_size={batch_size} is the global batch, and {world_size} devices{micro} do not divide it; "
            f"use {nearest}"
        )
    return batch_size // parts


class MicroBatches(Dataset):
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
        step, micro_batch = divmod(index, self.accumulation)
        first = (micro_batch * self.world_size + self.rank) * self.size
        chosen = draws(self.seed, len(self.pictures), step * self.batch_size + first, self.size)
        return _batch(self.pictures.subset(chosen), step, first)


class Chunks(Dataset):
    """Pictures `mine` of a set, `size` at a time, in order."""

    def __init__(self, pictures: Pictures, mine: range, *, size: int):
        self.pictures = pictures
        self.parts = [mine[i : i + size] for i in range(0, len(mine), size)]

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int) -> Batch:
        part = self.parts[index]
        return _batch(self.pictures.subset(np.asarray(part)), 0, part.start)


class From(Sampler[int]):
    """start, start + 1, ... without end: has no length, so that the trainer counts steps and not epochs."""

    def __init__(self, start: int):
        self.start = start

    def __iter__(self) -> Iterator[int]:
        index = self.start
        while True:
            yield index
            index += 1


def _batch(pictures: Pictures, step: int, first: int) -> Batch:
    labels = None if pictures.labels is None else torch.from_numpy(pictures.labels)
    return Batch(torch.from_numpy(pictures.images), labels, step, first)


def _as_it_is(batch: Batch) -> Batch:
    return batch
