"""The order in which pictures are shown: a permutation for each pass that can be asked about any place at once.

Nothing is stored and nothing replayed: place k of a permutation of a billion pictures costs what place 0 of ten does.
"""

import numpy as np

ROUNDS = 8


def permutation(seed: int, epoch: int, n: int, places: np.ndarray) -> np.ndarray:
    """Where the permutation of pass `epoch` takes each place.

    A Feistel network over the smallest square power of two that holds n, walked along its cycles until the result
    is below n (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").

    Args:
        seed: of the run, at least 0.
        epoch: number of the pass over the data, from 0.
        n: how many pictures there are, at least 1.
        places: int64 [K], each in [0, n).

    Returns:
        int64 [K], each in [0, n); all n places together give every number once.
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)

    def encrypt(values: np.ndarray) -> np.ndarray:
        left, right = values >> half, values & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right + key) & mask)
        return (left << half) | right

    result = encrypt(places.astype(np.uint64))
    while (outside := result >= n).any():
        result[outside] = encrypt(result[outside])
    return result.astype(np.int64)


def draws(seed: int, n: int, first: int, count: int) -> np.ndarray:
    """Pictures `first` ... `first + count - 1` of the endless stream of passes: int64 [count], each in [0, n).

    Draw k is place k mod n of pass k div n, so batches cross from one pass into the next and none is short.
    """
    k = np.arange(first, first + count, dtype=np.int64)
    chosen = np.empty(count, dtype=np.int64)
    for epoch in range(first // n, (first + count - 1) // n + 1):
        within = k // n == epoch
        chosen[within] = permutation(seed, epoch, n, k[within] % n)
    return chosen


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the input moves half the bits of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
