"""The order in which pictures are shown: a permutation for each pass that can be asked about any place.

Nothing is stored and nothing replayed: place k of a permutation of a billion pictures costs what place 0 of
ten does.
"""

import numpy as np

ROUNDS = 8


def permutation(seed: int, epoch: int, n: int, places: np.ndarray) -> np.ndarray:
    """Where the permutation of pass `epoch` takes each place.

    A Feistel network over the smallest square power of two that holds n, walked along its cycles until the
    result is below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        seed: of the run, at least 0.
        epoch: number of the pass over the data, from 0.
        n: how many pictures there are, at least 1.
        places: int64 [K], each in [0, n).

    Returns:
        int64 [K], each in [0, n); all n places together give every number once.
    """
    return _permuted(_keys(seed, epoch)[:, None], n, places)


def draws(seed: int, n: int, first: int, count: int) -> np.ndarray:
    """Draws `first` ... `first + count - 1` of the endless stream: int64 [count], each in [0, n)."""
    return draws_at(seed, n, np.arange(first, first + count, dtype=np.int64))


def draws_at(seed: int, n: int, k: np.ndarray) -> np.ndarray:
    """Some pictures of the endless stream of passes.

    Draw k is place k mod n of pass k div n, so batches cross from one pass into the next and none is short.

    Args:
        seed: of the run, at least 0.
        n: how many pictures there are, at least 1.
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


def _permuted(keys: np.ndarray, n: int, places: np.ndarray) -> np.ndarray:
    """Each place [K] under the permutation of its keys, uint64 [ROUNDS, K] or [ROUNDS, 1]."""
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)

    def encrypt(values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        left, right = values >> half, values & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        return (left << half) | right

    result = encrypt(places.astype(np.uint64), keys)
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
