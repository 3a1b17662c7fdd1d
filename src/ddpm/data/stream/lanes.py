"""One reader among several that feed a batch side by side."""

import itertools
from collections.abc import Iterator

import numpy as np

from ddpm.data.pixels.decoding import Decoded
from ddpm.data.stream.images import StreamedImages
from ddpm.data.stream.order import Block, ShardOrder
from ddpm.data.stream.sample import Sample


class LaneReader:
    """The endless images of one lane: of `batch_size / lanes` neighbouring indices of each batch.

    Args:
        images: that are streamed.
        order: in which they are shown.
        lane: its number.
        step: from which on.

    Attributes:
        skipped: name and reason of what could not be read, until someone takes it.
    """

    def __init__(self, images: StreamedImages, order: ShardOrder, lane: int, step: int):
        self.images = images
        self.order = order
        self.blocks = order.blocks(lane, step)
        self.skipped: list[tuple[str, str]] = []
        self._rows: Iterator[Sample] = iter(())
        self._next = (-1, -1)

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        """Pixels uint8 [C, H, W] and label of each image."""
        block = next(self.blocks)
        samples = list(self._read(block))
        while True:
            following = next(self.blocks)
            reading = self._read(following)
            # With each image shown some of the next block are read, so that no step waits for a whole one.
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
        order, starts = self.order.shuffled_shards(number)
        i = int(np.searchsorted(starts, first, "right")) - 1
        for shard, start in zip(order[i:], starts[i:-1], strict=True):
            row = max(0, first - int(start)) + int(self.images.held_out[shard])
            yield from self.images.shards.read(int(shard), row)

    def _readable(self, samples: list[Sample], order: np.ndarray) -> tuple[np.ndarray, int]:
        """The first of these samples that is an image; those before it are noted in `skipped`."""
        for position in order:
            sample = samples[position]
            found = sample.decoded(self.images.shaping)
            if isinstance(found, Decoded):
                return found.pixels, self.images.shards.label_of(sample)
            self.skipped.append((sample.name, found))
        raise ValueError(f"data.path: none of {len(order)} rows around {samples[0].name} is an image")
