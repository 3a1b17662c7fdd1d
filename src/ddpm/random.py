"""Everything random is a function of (seed, purpose, step, index), never of history, rank or device count.

An index is a position in the global batch, or the number of an image that is sampled. Numbers are drawn on
the device, for a block of neighbouring indices at a time: whoever needs some of them draws the blocks they
lie in and keeps its own. So every split of the batch over devices and micro-batches sees the same numbers.
They differ between kinds of devices.

The order in which images are shown is a permutation for each pass that can be asked about any position.
Nothing is stored and nothing replayed: position k of a permutation of a billion images costs what position 0
of ten does.
"""

import hashlib
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

BLOCK = 16
"""Places drawn together. Part of the contract: another size gives other numbers."""


class Purpose(IntEnum):
    """What the framework's own numbers are for, so that no two uses share a stream.

    What you add has a name of its own instead: `Stream(seed, "mypackage.mine")`.
    """

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
    CROP = 14
    FIGURE = 15
    CONDITION = 16


def key64(*key: int) -> int:
    """A 64-bit number that stands for a tuple of integers."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")


def rekeyed(seed: int, rollbacks: int) -> int:
    """The seed that a run draws from once it has gone back to a checkpoint so many times: its own at first,
    then another one each time, below 2^64.
    """
    return key64(seed, rollbacks) if rollbacks else seed


def named(purpose: str) -> int:
    """A number in [2^63, 2^64) that stands for a name, and that no `Purpose` has."""
    digest = hashlib.blake2b(purpose.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") | 1 << 63


class Stream:
    """The random numbers of one purpose in one run.

    Args:
        seed: of the run, at least 0.
        purpose: of the numbers; a name, for those that are not the framework's own.
        device: where they are drawn and live.
    """

    def __init__(self, seed: int, purpose: Purpose | str, device: torch.device | str = "cpu"):
        self.seed = seed
        self.purpose = named(purpose) if isinstance(purpose, str) else purpose
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

    def normal(self, step: int, indices: range, shape: tuple[int, ...]) -> Tensor:
        """Unit Gaussian numbers for each index: float32 [len(indices), *shape]."""
        return self._draw("normal", step, indices, shape)

    def uniform(self, step: int, indices: range, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform numbers in [0, 1) for each index: float32 [len(indices), *shape]."""
        return self._draw("uniform", step, indices, shape)

    def _draw(self, distribution: str, step: int, indices: range, shape: tuple[int, ...]) -> Tensor:
        first_block = indices.start // BLOCK
        num_blocks = -(-indices.stop // BLOCK) - first_block
        drawn = torch.empty(num_blocks * BLOCK, *shape, device=self.device)
        for i, block in enumerate(drawn.split(BLOCK)):
            self._fill(distribution, block, step, first_block + i)
        offset = indices.start - first_block * BLOCK
        return drawn[offset : offset + len(indices)]

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


ROUNDS = 8


def permutation(seed: int, epoch: int, n: int, indices: np.ndarray) -> np.ndarray:
    """Where the permutation of pass `epoch` takes each index.

    A Feistel network over the smallest square power of two that holds n, walked along its cycles until the
    result is below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        seed: of the run, at least 0.
        epoch: number of the pass over the data, from 0.
        n: how many images there are, at least 1.
        indices: int64 [K], each in [0, n).

    Returns:
        int64 [K], each in [0, n); all n indices together give every number once.
    """
    return _permuted(_keys(seed, epoch)[:, None], n, indices)


def draws(seed: int, n: int, first: int, count: int) -> np.ndarray:
    """Draws `first` ... `first + count - 1` of the endless stream: int64 [count], each in [0, n)."""
    return draws_at(seed, n, np.arange(first, first + count, dtype=np.int64))


def draws_at(seed: int, n: int, k: np.ndarray) -> np.ndarray:
    """Some images of the endless stream of passes.

    Draw k is index k mod n of pass k div n, so batches cross from one pass into the next and none is short.

    Args:
        seed: of the run, at least 0.
        n: how many images there are, at least 1.
        k: int64 [K], numbers of draws, each at least 0.

    Returns:
        int64 [K], each in [0, n).
    """
    epochs, which = np.unique(k // n, return_inverse=True)
    keys = np.stack([_keys(seed, int(epoch)) for epoch in epochs], axis=1)
    return _permuted(keys[:, which], n, k % n)


def _keys(seed: int, epoch: int) -> np.ndarray:
    """uint64 [ROUNDS]."""
    return np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)


def _permuted(keys: np.ndarray, n: int, indices: np.ndarray) -> np.ndarray:
    """Each index [K] under the permutation of its keys, uint64 [ROUNDS, K] or [ROUNDS, 1]."""
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)

    def encrypt(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        left, right = values >> half, values & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        return (left << half) | right

    result = encrypt(indices.astype(np.uint64), keys)
    outside = np.flatnonzero(result >= n)
    while len(outside):
        result[outside] = encrypt(result[outside], keys[:, outside] if keys.shape[1] > 1 else keys)
        outside = outside[result[outside] >= n]
    return result.astype(np.int64)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input moves half the bits of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
