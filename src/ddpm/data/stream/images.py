"""Images that are streamed from shards: what the data module has instead of a set of images."""

import logging
from dataclasses import dataclass

import numpy as np
import torch.distributed as dist

from ddpm.data.pixels.shaping import Shaping
from ddpm.data.skipped import Skipped
from ddpm.data.stream.order import ShardOrder
from ddpm.data.stream.shards import Shards

logger = logging.getLogger(__name__)

MOST_LANES = 48


@dataclass(frozen=True)
class StreamedImages:
    """Images that nobody holds: they are read when they are shown.

    Attributes:
        shards: hold them.
        held_out: int64 [S], rows at the beginning of each shard that are not among them.
        shaping: what is asked of every image; its size and channels are set.
        buffer: images, still encoded, that are shuffled together, over all lanes and devices.
        lanes: parts of a batch that are read side by side; None is the greatest common divisor of the batch
            and 48.
        skipped: what could not be read so far, on this device.
    """

    shards: Shards
    held_out: np.ndarray
    shaping: Shaping
    buffer: int
    lanes: int | None
    skipped: Skipped

    def __len__(self) -> int:
        return int((self.shards.counts - self.held_out).sum())

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, size = self.shaping.channels, self.shaping.size
        assert channels is not None
        assert size is not None
        return channels, *size

    def order(self, batch_size: int, seed: int) -> ShardOrder:
        """In which order they are shown.

        Raises:
            ValueError: where `lanes` do not divide the batch, or are more than `buffer`.
        """
        lanes = int(np.gcd(batch_size, MOST_LANES)) if self.lanes is None else self.lanes
        if lanes < 1 or batch_size % lanes:
            raise ValueError(f"data.lanes={lanes} must divide data.batch_size={batch_size}")
        if self.buffer < lanes:
            raise ValueError(f"data.buffer={self.buffer} must be at least data.lanes={lanes}")
        counts = self.shards.counts - self.held_out
        return ShardOrder(counts, batch_size=batch_size, lanes=lanes, buffer=self.buffer, seed=seed)

    def check_shared(self, batch_size: int, *, world_size: int, accumulation: int) -> None:
        """Refuse, with ValueError, numbers of devices and micro-batches that lanes cannot be shared by."""
        lanes, parts = self.order(batch_size, seed=0).lanes, world_size * accumulation
        if lanes % parts:
            raise ValueError(
                f"data.lanes={lanes}: {world_size} devices x {accumulation} micro-batches do not divide it; "
                f"use data.lanes={parts}, which changes the order of the images"
            )

    def gather_skipped(self) -> None:
        """Learn what could not be read on any device, and say how much it was."""
        if dist.is_available() and dist.is_initialized():
            everyone: list[list[tuple[str, str]]] = [[]] * dist.get_world_size()
            dist.all_gather_object(everyone, list(self.skipped))
            for found in everyone:
                self.skipped.update(found)
        if self.skipped:
            logger.warning("skipped %s images in all", f"{len(self.skipped):,}")
