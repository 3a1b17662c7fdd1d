"""Sets larger than disk or memory: shards that are read one after the other, and shuffled in a buffer."""

import hashlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ddpm.data.decoding import (
    Decoded,
    check_channels,
    check_on_error,
    decode_or_reason,
    parse_size,
    printable,
)
from ddpm.data.module import Batch, ImageDataModule
from ddpm.data.pictures import DataSet, Pictures, survey
from ddpm.data.shards import Sample, Shards, find_shards
from ddpm.random import permutation

logger = logging.getLogger(__name__)

SHARDS_HELD_OUT_FROM = 10
LANES = 48
NAMED = 20


class Stream(ImageDataModule):
    """Pictures of parquet or webdataset shards, on this disk or behind a URL, none of which is kept.

    The contract. A pass shows each of the N pictures of the training part once; draws pass * N up to, and not
    with, (pass + 1) * N are one pass, and place i of step s is draw s * batch_size + i, as for every source.
    Within a pass the shards are shuffled, and the pictures of each lane within a buffer; so a pass is less
    mixed than a permutation of all pictures would be. A lane is a reader of its own, which feeds neighbouring
    places: batch_size / lanes of them.

    - Equal: the pictures of every step and place, for the same shards, `batch_size`, `lanes`, `buffer`,
      `validation_size` and seed, on any number of devices, nodes, workers and micro-batches; and after a
      restart at any step, which reads at most one buffer again and no earlier one.
    - Not equal: where one of these differs, or a shard is added, removed, renamed or changes its number of
      rows.
    - No device runs dry: the stream has no end, and a batch may hold the end of a pass and the beginning of
      the next.
    - A picture that cannot be read is replaced by the next of its buffer that can, which that pass shows
      twice; `on_error=fail` ends the run instead.

    Devices x micro-batches must divide `lanes`, and `lanes` the batch.

    Args:
        path: a folder, a pattern such as `shards/train-*.tar`, or the same behind a protocol that `fsspec`
            knows (`hf://datasets/...`, `s3://...`).
        image_size: pixels, or [height, width]; the shorter side is resized to fit, and the middle is kept.
        batch_size: pictures an optimizer step, over all devices.
        channels: 1 or 3.
        image_column: of parquet; None is the first column of pictures.
        label_column: of parquet; None is one called `label` or `fine_label`, if any. Samples of a webdataset
            have theirs in a `.cls` file.
        validation_size: pictures that are held out, from the beginnings of up to ten shards.
        buffer: pictures, still encoded, that are shuffled together, over all lanes and devices; twice as many
            are held in memory.
        lanes: places that are read at once; None is the greatest common divisor of `batch_size` and 48.
        on_error: what to do about a row that holds no picture: `skip` names it in a warning and lists it in
            `skipped`, `fail` refuses it.
        cache_dir: where the numbers of rows are kept; None is $DDPM_CACHE or ~/.cache/ddpm.
        horizontal_flip: mirror every other picture, at random, in training.
        dequantize: spread each level of brightness over its width by uniform noise, in training.
        label_drop: share of the labels that are withheld from the network in training, in [0, 1].
        num_workers: processes that read and decode, on each device.
        seed: of the run.

    Raises:
        ValueError: for settings that cannot be; from `data_set`, where there are no shards or one is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: int | Sequence[int],
        batch_size: int = 64,
        *,
        channels: int = 3,
        image_column: str | None = None,
        label_column: str | None = None,
        validation_size: int = 1000,
        buffer: int = 8192,
        lanes: int | None = None,
        on_error: str = "skip",
        cache_dir: str | Path | None = None,
        horizontal_flip: bool = True,
        dequantize: bool = False,
        label_drop: float = 0.0,
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(
            batch_size=batch_size,
            horizontal_flip=horizontal_flip,
            dequantize=dequantize,
            label_drop=label_drop,
            device_share=0,
            num_workers=num_workers,
            seed=seed,
        )
        check_channels(channels)
        check_on_error(on_error)
        if channels is None:
            raise ValueError("data.channels must be 1 or 3: a stream does not know its pictures beforehand")
        if validation_size < 0:
            raise ValueError(f"data.validation_size={validation_size} must be at least 0")
        lanes = int(np.gcd(batch_size, LANES)) if lanes is None else lanes
        if lanes < 1 or batch_size % lanes:
            raise ValueError(f"data.lanes={lanes} must divide data.batch_size={batch_size}")
        if buffer < lanes:
            raise ValueError(f"data.buffer={buffer} must be at least data.lanes={lanes}")
        self.path = path
        self.size = parse_size(image_size)
        self.channels = channels
        self.image_column = image_column
        self.label_column = label_column
        self.validation_size = validation_size
        self.buffer = buffer
        self.lanes = lanes
        self.on_error = on_error
        self.cache_dir = cache_dir
        self._skipped: dict[str, str] = {}

    @cached_property
    def shards(self) -> Shards:
        """The shards, their rows counted."""
        return find_shards(self.path, self.cache_dir, self.image_column, self.label_column)

    @cached_property
    def held_out(self) -> np.ndarray:
        """int64 [S]: how many rows at the beginning of each shard are for validation, at most half."""
        counts = self.shards.counts
        chosen = np.unique(np.linspace(0, len(counts) - 1, SHARDS_HELD_OUT_FROM).astype(int))
        held_out = np.zeros_like(counts)
        held_out[chosen] = np.minimum(-(-self.validation_size // len(chosen)), counts[chosen] // 2)
        return held_out

    def read(self) -> DataSet:
        """The held-out pictures; of those to train on, only their number and shape."""
        images, labels = [], []
        for shard in np.flatnonzero(self.held_out):
            for sample in itertools.islice(self.shards.read(int(shard), 0), int(self.held_out[shard])):
                found = _decoded(sample, self.size, self.channels)
                if isinstance(found, Decoded):
                    images.append(found.pixels)
                    labels.append(self.shards.labels.get(sample.label, 0))
                else:
                    self._skip([(sample.name, found)])
        stacked = np.stack(images) if images else np.empty((0, *self.image_shape), np.uint8)
        classes = self.shards.classes
        validation = Pictures(stacked, None if classes is None else np.array(labels, np.int64))
        known = {"shards": len(self.shards.paths), "of": "the held-out pictures"}
        known |= survey([validation]) if images else {}
        return DataSet(_Streamed(self), validation, classes, known=known)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the names, sizes and numbers of rows of the shards, the same on every machine."""
        what = (self.image_shape, self.shards.classes, list(self.shards.identity), self.validation_size)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, *self.size

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of everything that could not be read so far, on this device; once training ends by
        itself, on all of them.
        """
        return list(self._skipped.items())

    @property
    def lives_on_device(self) -> bool:
        """Never."""
        return False

    def teardown(self, stage: str) -> None:
        """Share what could not be read on any device, and say how much it was."""
        super().teardown(stage)
        if dist.is_available() and dist.is_initialized():
            everyone: list[dict[str, str]] = [{}] * dist.get_world_size()
            dist.all_gather_object(everyone, self._skipped)
            for found in everyone:
                self._skipped |= found
        if self._skipped:
            logger.warning("skipped %s pictures in all", f"{len(self._skipped):,}")

    def check_shared(self, *, world_size: int, accumulation: int) -> None:
        """Refuse, with ValueError, numbers of devices and micro-batches that lanes cannot be shared by."""
        super().check_shared(world_size=world_size, accumulation=accumulation)
        parts = world_size * accumulation
        if self.lanes % parts:
            raise ValueError(
                f"data.lanes={self.lanes}: {world_size} devices x {accumulation} micro-batches do not divide "
                f"it; use data.lanes={parts}, which changes the order of the pictures"
            )

    def training_part(self) -> "TrainingPart":
        """What workers need to know."""
        order = Order(
            self.shards.counts - self.held_out,
            batch_size=self.batch_size,
            lanes=self.lanes,
            buffer=self.buffer,
            seed=self.seed,
        )
        return TrainingPart(self.shards, self.held_out, self.size, self.channels, order)

    def train_dataloader(self) -> "StreamLoader":
        """Micro-batches of this device from the trainer's current step on, without end."""
        return StreamLoader(
            self,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            accumulation=self.trainer.accumulate_grad_batches,
            step=self.trainer.global_step,
            pin_memory=self._device.type == "cuda",
        )

    def _skip(self, names: Sequence[tuple[str, str]]) -> None:
        for name, reason in names:
            if self.on_error == "fail":
                raise ValueError(
                    f"data.on_error=fail: {printable(name)} cannot be read ({reason}); mend or remove it, or "
                    "leave such files out with data.on_error=skip"
                )
            if name not in self._skipped and len(self._skipped) < NAMED:
                logger.warning("skipped %s: %s", printable(name), reason)
            self._skipped[name] = reason


class _Streamed:
    """Stands for the training part, which nobody has."""

    def __init__(self, stream: Stream):
        self._count = int((stream.shards.counts - stream.held_out).sum())

    def __len__(self) -> int:
        return self._count


class Block(NamedTuple):
    """Pictures of a lane that are shuffled together.

    Attributes:
        number: of the pass.
        first: the first of them, in the order of the pass before it is shuffled.
        order: int64 [K], each in [0, K): how they are shown, counted from `first`.
        shown: how many of them were shown before.
    """

    number: int
    first: int
    order: np.ndarray
    shown: int


class Order:
    """Which row of which shard is shown when: a function of its arguments alone.

    A pass lays all shards end to end, shuffled as wholes, and gives each lane a stretch of this row; the
    stretch is as long as the lane has draws in the pass. A lane shows its stretch block by block, each block
    shuffled.

    Args:
        counts: int64 [S], rows of each shard.
        batch_size: of the global batch.
        lanes: divides it.
        buffer: pictures of a block, over all lanes.
        seed: of the run.
    """

    def __init__(self, counts: np.ndarray, *, batch_size: int, lanes: int, buffer: int, seed: int):
        self.counts = counts
        self.total = int(counts.sum())
        self.batch_size = batch_size
        self.lanes = lanes
        self.places = batch_size // lanes
        self.block = buffer // lanes
        self.seed = seed

    def shuffled_shards(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in the order of a pass, int64 [S], and where each begins, int64 [S + 1]."""
        return _shuffled_shards(self.seed, number, tuple(self.counts.tolist()))

    def draws_of_lanes(self, k: int) -> np.ndarray:
        """How many of the first k draws each lane has: int64 [lanes]."""
        steps, rest = divmod(k, self.batch_size)
        return steps * self.places + np.clip(rest - np.arange(self.lanes) * self.places, 0, self.places)

    def blocks(self, lane: int, step: int) -> Iterator[Block]:
        """The blocks of a lane from the one that it is in at a step on, without end."""
        k = step * self.batch_size + lane * self.places
        for number in itertools.count(k // self.total):
            begin = self.draws_of_lanes(number * self.total)
            mine = self.draws_of_lanes((number + 1) * self.total) - begin
            start = int(mine[:lane].sum())
            shown = max(0, step * self.places - int(begin[lane]))
            for first in range(shown // self.block * self.block, int(mine[lane]), self.block):
                size = min(self.block, int(mine[lane]) - first)
                unique = 1 << 96 | (number * self.lanes + lane) << 48 | first
                order = permutation(self.seed, unique, size, np.arange(size))
                yield Block(number, start + first, order, max(0, shown - first))


@lru_cache(4)
def _shuffled_shards(seed: int, number: int, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    order = permutation(seed, number, len(counts), np.arange(len(counts)))
    return order, np.concatenate([[0], np.cumsum(np.array(counts, np.int64)[order])])


class TrainingPart(NamedTuple):
    """The pictures to train on, as they lie in shards.

    Attributes:
        shards: hold them.
        held_out: int64 [S], rows at the beginning of each shard that are not among them.
        size: (height, width).
        channels: 1 or 3.
        order: in which they are shown.
    """

    shards: Shards
    held_out: np.ndarray
    size: tuple[int, int]
    channels: int
    order: Order


class Lane:
    """One reader: the endless pictures of `batch_size / lanes` neighbouring places."""

    def __init__(self, part: TrainingPart, lane: int, step: int):
        self.part = part
        self.blocks = part.order.blocks(lane, step)
        self.skipped: list[tuple[str, str]] = []
        self._rows: Iterator[Sample] = iter(())
        self._next = (-1, -1)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Pixels uint8 [C, H, W] and label of each picture."""
        block = next(self.blocks)
        samples = list(self._read(block))
        while True:
            following = next(self.blocks)
            reading = self._read(following)
            # With each picture shown some of the next block are read, so that no step waits for a whole one.
            at_once = -(-len(following.order) // len(block.order))
            ahead: list[Sample] = []
            for position in range(block.shown, len(block.order)):
                yield self._readable(samples, np.roll(block.order, -position))
                ahead += itertools.islice(reading, at_once)
            ahead += reading
            block, samples = following, ahead

    def _read(self, block: Block) -> Iterator[Sample]:
        if self._next != (block.number, block.first):
            self._rows = self._from(block.number, block.first)
        self._next = (block.number, block.first + len(block.order))
        return itertools.islice(self._rows, len(block.order))

    def _from(self, number: int, first: int) -> Iterator[Sample]:
        """The rows of a pass, before they are shuffled, from one on."""
        order, starts = self.part.order.shuffled_shards(number)
        i = int(np.searchsorted(starts, first, "right")) - 1
        for shard, start in zip(order[i:], starts[i:-1], strict=True):
            row = max(0, first - int(start)) + int(self.part.held_out[shard])
            yield from self.part.shards.read(int(shard), row)

    def _readable(self, samples: list[Sample], order: np.ndarray) -> tuple[np.ndarray, int]:
        """The first of these samples that is a picture; those before it are noted in `skipped`."""
        for place in order:
            found = _decoded(samples[place], self.part.size, self.part.channels)
            if isinstance(found, Decoded):
                return found.pixels, self.part.shards.labels.get(samples[place].label, 0)
            self.skipped.append((samples[place].name, found))
        raise ValueError(f"data.path: none of {len(order)} rows around {samples[0].name} is a picture")


class Piece(NamedTuple):
    """What one worker adds to a micro-batch.

    Attributes:
        images: uint8 [B, C, H, W].
        labels: int64 [B].
        skipped: name and reason of what could not be read.
    """

    images: torch.Tensor
    labels: torch.Tensor
    skipped: list[tuple[str, str]]


class Pieces(IterableDataset):
    """The pieces of one worker, without end; `lanes` are those of each micro-batch of this device."""

    def __init__(self, part: TrainingPart, lanes: Sequence[range], step: int):
        self.part = part
        self.lanes = lanes
        self.step = step

    def __iter__(self) -> Iterator[Piece]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        groups = [
            [
                Lane(self.part, lane, self.step)
                for lane in lanes[len(lanes) * number // workers : len(lanes) * (number + 1) // workers]
            ]
            for lanes in self.lanes
        ]
        readers = [[iter(lane) for lane in group] for group in groups]
        for micro_batch in itertools.cycle(range(len(groups))):
            shown = [next(reader) for reader in readers[micro_batch] for _ in range(self.part.order.places)]
            skipped = [name for lane in groups[micro_batch] for name in lane.skipped]
            for lane in groups[micro_batch]:
                lane.skipped.clear()
            images = torch.from_numpy(np.stack([pixels for pixels, _ in shown]))
            yield Piece(images, torch.tensor([label for _, label in shown]), skipped)


class StreamLoader:
    """The endless micro-batches of one device."""

    def __init__(
        self,
        stream: Stream,
        *,
        rank: int,
        world_size: int,
        accumulation: int,
        step: int,
        pin_memory: bool = False,
    ):
        self.stream = stream
        stream.check_shared(world_size=world_size, accumulation=accumulation)
        parts = [micro_batch * world_size + rank for micro_batch in range(accumulation)]
        size, each = (n // (world_size * accumulation) for n in (stream.batch_size, stream.lanes))
        self.firsts = [part * size for part in parts]
        self.lanes = [range(part * each, (part + 1) * each) for part in parts]
        self.num_workers = min(stream.num_workers, each)
        self.step = step
        self.pin_memory = pin_memory

    def __iter__(self) -> Iterator[Batch]:
        pieces = iter(
            DataLoader(
                Pieces(self.stream.training_part(), self.lanes, self.step),
                batch_size=None,
                num_workers=self.num_workers,
                collate_fn=_as_it_is,
            )
        )
        for step in itertools.count(self.step):
            for first in self.firsts:
                parts = list(itertools.islice(pieces, max(1, self.num_workers)))
                for part in parts:
                    self.stream._skip(part.skipped)
                images, labels = (torch.cat(column) for column in list(zip(*parts, strict=True))[:2])
                if self.pin_memory:
                    images, labels = images.pin_memory(), labels.pin_memory()
                yield Batch(images, labels if self.stream.shards.classes else None, step, first)


def _decoded(sample: Sample, size: tuple[int, int], channels: int) -> Decoded | str:
    """The picture, or the reason why there is none."""
    if isinstance(sample.source, str):
        return sample.source
    return decode_or_reason(sample.source, size, channels)


def _as_it_is(piece: Piece) -> Piece:
    return piece
