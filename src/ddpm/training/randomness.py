"""Random numbers as a function of (seed, purpose, step, place), never of history, rank or number of devices.

A place is a position in the global batch, or the index of an image that is sampled. Numbers are drawn on the
device, for a block of neighbouring places at a time: whoever needs some places draws the blocks they lie in
and keeps its own. So every split of the batch over devices and micro-batches sees the same numbers. They
differ between kinds of devices.
"""

import hashlib
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

BLOCK = 16
"""Places drawn together. Part of the contract: another size gives other numbers."""


class Purpose(IntEnum):
    """What numbers are for, so that no two uses share a stream."""

    TIMESTEP = 1
    NOISE = 2
    FLIP = 3
    DROPOUT = 4
    VALIDATION = 5
    SAMPLE_START = 6
    SAMPLE_STEP = 7
    LIKELIHOOD = 8
    LIKELIHOOD_STEP = 9
    DEQUANTIZATION = 12
    LABEL_DROP = 13


def key64(*key: int) -> int:
    """A 64-bit number that stands for a tuple of integers."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


class Stream:
    """The random numbers of one purpose in one run.

    Args:
        seed: of the run, at least 0.
        purpose: of the numbers.
        device: where they are drawn and live.
    """

    def __init__(self, seed: int, purpose: Purpose, device: torch.device | str = "cpu"):
        self.seed = seed
        self.purpose = purpose
        self.device = torch.device(device)
        # one generator, set anew for each block: to make one takes ten times as long
        if self.device.type == "cpu":
            # torch seeds its CPU generator with 32 bits only, so that streams of a long run would collide;
            # numpy's counter-based generator takes the whole key
            self._philox = np.random.Philox(key=seed)
            self._fresh = self._philox.state
            self._numpy = np.random.Generator(self._philox)
        else:
            self._torch = torch.Generator(self.device)

    def normal(self, step: int, places: range, shape: tuple[int, ...]) -> Tensor:
        """Unit Gaussian numbers for each place: float32 [len(places), *shape]."""
        return self._draw("normal", step, places, shape)

    def uniform(self, step: int, places: range, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform numbers in [0, 1) for each place: float32 [len(places), *shape]."""
        return self._draw("uniform", step, places, shape)

    def _draw(self, distribution: str, step: int, places: range, shape: tuple[int, ...]) -> Tensor:
        first_block = places.start // BLOCK
        num_blocks = -(-places.stop // BLOCK) - first_block
        drawn = torch.empty(num_blocks * BLOCK, *shape, device=self.device)
        for i, block in enumerate(drawn.split(BLOCK)):
            self._fill(distribution, block, step, first_block + i)
        offset = places.start - first_block * BLOCK
        return drawn[offset : offset + len(places)]

    def _fill(self, distribution: str, block: Tensor, step: int, index: int) -> None:
        if self.device.type == "cpu":
            self._fresh["state"]["counter"][:] = 0, index, step, self.purpose
            self._philox.state = self._fresh
            draw = self._numpy.standard_normal if distribution == "normal" else self._numpy.random
            draw(dtype=np.float32, out=block.numpy())
            return
        self._torch.manual_seed(key64(self.seed, self.purpose, step, index))
        if distribution == "normal":
            block.normal_(generator=self._torch)
        else:
            block.uniform_(generator=self._torch)


def seed_dropout(seed: int, step: int, micro_batch: int, rank: int, device: torch.device) -> None:
    """Key torch's global generators, which dropout draws from, by what must differ between ranks.

    Only those that dropout on this device draws from: `torch.manual_seed` looks at every kind of device,
    which takes longer than the rest of what a step adds to the network's own work.
    """
    key = key64(seed, Purpose.DROPOUT, step, micro_batch, rank)
    torch.default_generator.manual_seed(key)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(key)
