"""Which images each batch is made of: global batches, shared by devices and micro-batches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from ddpm.diffusion.condition import Condition
from ddpm.random import draws_at

ORDERED_AT_ONCE = 8192
"""Draws of the order that are computed together, which costs little more than one."""


class Batch(NamedTuple):
    """A device's part of a global batch, or of the validation set.

    Attributes:
        x_0: [B, C, H, W]; uint8 on its way to the device, then float32 in [-1, 1].
        labels: int64 [B], `NO_LABEL` where one is withheld; None where there are no classes.
        step: the optimizer step that it belongs to, from 0.
        first: index of its first image in the global batch; of validation, in the whole held-out set.
        condition: what else the network is conditioned on; None for nothing. Of a set that holds images for
            it they are the last channels of `x_0` on the way to the device.
    """

    x_0: Tensor
    labels: Tensor | None
    step: int
    first: int
    condition: Condition | None = None

    @property
    def indices(self) -> range:
        """Index of each image in the global batch; of validation, in the whole held-out set."""
        return range(self.first, self.first + len(self.x_0))


class BatchIndices(NamedTuple):
    """Which images of a set a batch is made of, before they are read.

    Attributes:
        indices: int64 [B], into the part of the set that the batch is of.
        step: as in `Batch`.
        first: as in `Batch`.
    """

    indices: np.ndarray | Tensor
    step: int
    first: int


def share(batch_size: int, *, world_size: int, accumulation: int) -> int:
    """How many images of a global batch one device sees at once.

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
    """One device's micro-batches, without end; number i is a function of i alone.

    Index j of the global batch of step s is draw s * batch_size + j; see `ddpm.random.draws_at`.

    Args:
        num_images: of the set, at least 1.
        batch_size: of the global batch.
        seed: of the run.
        rank: of this device.
        world_size: number of devices.
        accumulation: micro-batches an optimizer step.
        repeat: global batches after which the same images come again; None for all images of the set. A step
            has its number, and with it its noise, all the same.

    Raises:
        ValueError: where the batch cannot be divided evenly.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        accumulation: int,
        repeat: int | None = None,
    ):
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.accumulation = accumulation
        self.repeat = repeat
        self.size = share(batch_size, world_size=world_size, accumulation=accumulation)

    def __getitem__(self, number: int) -> BatchIndices:
        return self.some(number, 1)[0]

    def some(self, number: int, count: int) -> list[BatchIndices]:
        """Micro-batches `number` ... `number + count - 1`."""
        step, micro_batch = np.divmod(np.arange(number, number + count), self.accumulation)
        first = (micro_batch * self.world_size + self.rank) * self.size
        shown = step if self.repeat is None else step % self.repeat
        k = (shown * self.batch_size + first)[:, None] + np.arange(self.size)
        indices = draws_at(self.seed, self.num_images, k.ravel()).reshape(k.shape)
        return [BatchIndices(*one) for one in zip(indices, step.tolist(), first.tolist(), strict=True)]


class EndlessBatches(Sampler[BatchIndices]):
    """Micro-batches from one on: has no length, so that the trainer counts steps, not epochs."""

    def __init__(self, micro_batches: MicroBatches, start: int):
        self.micro_batches = micro_batches
        self.start = start

    def __iter__(self) -> Iterator[BatchIndices]:
        number = self.start
        count = max(1, ORDERED_AT_ONCE // self.micro_batches.size)
        while True:
            yield from self.micro_batches.some(number, count)
            number += count


def in_order(images: range, *, size: int) -> list[BatchIndices]:
    """These images of a set, `size` at a time."""
    starts = range(images.start, images.stop, size)
    return [BatchIndices(np.arange(start, min(start + size, images.stop)), 0, start) for start in starts]
