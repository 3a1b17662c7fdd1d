"""Micro-batches of streamed images: each worker reads some lanes, and what they read is joined."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ddpm.data.batches import Batch, share
from ddpm.data.stream.images import StreamedImages
from ddpm.data.stream.lanes import LaneReader
from ddpm.data.stream.order import ShardOrder
from ddpm.data.workers import WorkerLoader


class PartOfBatch(NamedTuple):
    """What one worker adds to a micro-batch.

    Attributes:
        images: uint8 [B, C, H, W].
        labels: int64 [B].
        skipped: name and reason of what could not be read.
    """

    images: Tensor
    labels: Tensor
    skipped: list[tuple[str, str]]


class WorkerStream(IterableDataset[PartOfBatch]):
    """What one worker reads, without end.

    Args:
        images: that are streamed.
        order: in which they are shown.
        lanes: of each micro-batch of this device; the workers share them.
        step: from which on.
    """

    def __init__(self, images: StreamedImages, order: ShardOrder, lanes: Sequence[range], step: int):
        self.images = images
        self.order = order
        self.lanes = lanes
        self.step = step

    def __iter__(self) -> Iterator[PartOfBatch]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        groups = [
            [
                LaneReader(self.images, self.order, lane, self.step)
                for lane in lanes[len(lanes) * number // workers : len(lanes) * (number + 1) // workers]
            ]
            for lanes in self.lanes
        ]
        readers = [[iter(lane) for lane in group] for group in groups]
        for micro_batch in itertools.cycle(range(len(groups))):
            shown = [next(reader) for reader in readers[micro_batch] for _ in range(self.order.per_lane)]
            skipped = [pair for lane in groups[micro_batch] for pair in lane.skipped]
            for lane in groups[micro_batch]:
                lane.skipped.clear()
            images = torch.from_numpy(np.stack([pixels for pixels, _ in shown]))
            yield PartOfBatch(images, torch.tensor([label for _, label in shown]), skipped)


class StreamLoader:
    """The endless micro-batches of one device.

    Args:
        images: that are streamed.
        batch_size: of the global batch.
        seed: of the run.
        rank: of this device.
        world_size: number of devices.
        accumulation: micro-batches an optimizer step.
        step: from which on.
        num_workers: processes that read; 0 reads in this one. The batches are the same.
        pin_memory: whether batches lie where a GPU can fetch them.

    Raises:
        ValueError: where the batch or its lanes cannot be shared by devices and micro-batches.
    """

    def __init__(
        self,
        images: StreamedImages,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        accumulation: int,
        step: int,
        num_workers: int = 0,
        pin_memory: bool = False,
    ):
        size = share(batch_size, world_size=world_size, accumulation=accumulation)
        images.check_shared(batch_size, world_size=world_size, accumulation=accumulation)
        self.images = images
        self.order = images.order(batch_size, seed)
        each = self.order.lanes // (world_size * accumulation)
        parts = [micro_batch * world_size + rank for micro_batch in range(accumulation)]
        self.firsts = [part * size for part in parts]
        self.lanes = [range(part * each, (part + 1) * each) for part in parts]
        self.num_workers = min(num_workers, each)
        self.step = step
        self.pin_memory = pin_memory

    def __iter__(self) -> Iterator[Batch]:
        parts_of_batches = iter(
            WorkerLoader(
                WorkerStream(self.images, self.order, self.lanes, self.step), num_workers=self.num_workers
            )
        )
        for step in itertools.count(self.step):
            for first in self.firsts:
                # one of each worker, in turn: the loader's own order
                parts = list(itertools.islice(parts_of_batches, max(1, self.num_workers)))
                for name, reason in itertools.chain.from_iterable(part.skipped for part in parts):
                    self.images.skipped.add(name, reason)
                images = torch.cat([part.images for part in parts])
                labels = torch.cat([part.labels for part in parts])
                if self.pin_memory:
                    images, labels = images.pin_memory(), labels.pin_memory()
                yield Batch(images, labels if self.images.shards.classes else None, step, first)
