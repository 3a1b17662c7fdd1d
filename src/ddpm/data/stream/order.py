"""In which order the rows of shards are shown."""

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ddpm.random import permutation


class Block(NamedTuple):
    """Images of a lane that are shuffled together.

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


class ShardOrder:
    """Which row of which shard is shown when: a function of its arguments alone.

    A pass lays all shards end to end, shuffled as wholes, and gives each lane a stretch of this row; the
    stretch is as long as the lane has draws in the pass. A lane shows its stretch block by block, each block
    shuffled.

    Args:
        counts: int64 [S], rows of each shard.
        batch_size: of the global batch.
        lanes: divides it.
        buffer: images of a block, over all lanes.
        seed: of the run.
    """

    def __init__(self, counts: np.ndarray, *, batch_size: int, lanes: int, buffer: int, seed: int):
        self.counts = counts
        self.total = int(counts.sum())
        self.batch_size = batch_size
        self.lanes = lanes
        self.per_lane = batch_size // lanes
        self.block_size = buffer // lanes
        self.seed = seed

    def shuffled_shards(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """The shards in the order of a pass, int64 [S], and where each begins, int64 [S + 1]."""
        return _shuffled_shards(self.seed, number, tuple(self.counts.tolist()))

    def draws_of_lanes(self, k: int) -> np.ndarray:
        """How many of the first k draws each lane has: int64 [lanes]."""
        steps, rest = divmod(k, self.batch_size)
        return steps * self.per_lane + np.clip(rest - np.arange(self.lanes) * self.per_lane, 0, self.per_lane)

    def blocks(self, lane: int, step: int) -> Iterator[Block]:
        """The blocks of a lane from the one that it is in at a step on, without end."""
        k = step * self.batch_size + lane * self.per_lane
        for number in itertools.count(k // self.total):
            begin = self.draws_of_lanes(number * self.total)
            mine = self.draws_of_lanes((number + 1) * self.total) - begin
            start = int(mine[:lane].sum())
            shown = max(0, step * self.per_lane - int(begin[lane]))
            for first in range(shown // self.block_size * self.block_size, int(mine[lane]), self.block_size):
                size = min(self.block_size, int(mine[lane]) - first)
                unique = 1 << 96 | (number * self.lanes + lane) << 48 | first
                order = permutation(self.seed, unique, size, np.arange(size))
                yield Block(number, start + first, order, max(0, shown - first))


@lru_cache(4)
def _shuffled_shards(seed: int, number: int, counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    order = permutation(seed, number, len(counts), np.arange(len(counts)))
    return order, np.concatenate([[0], np.cumsum(np.array(counts, np.int64)[order])])
