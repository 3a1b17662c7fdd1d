"""What is known about each image of a set, so that one that is as it was need not be read again."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddpm.data.pixels.decoding import Decoded
from ddpm.data.prepared.quantiles import quantiles

LISTED_SIZES = 20

RECORD = np.dtype(
    [
        ("state", "S16"),
        ("planes", "u1"),
        ("mode", "u2"),
        ("size", "u4", 2),
        ("values", "f8", 2),
        ("limits", "f8", 2),
    ]
)


class Records:
    """A row for each image: a hash of its name and state, and all of `Decoded` but the pixels.

    Args:
        rows: of `RECORD`, [N].
        modes: what the numbers in the column `mode` mean.
    """

    def __init__(self, rows: np.ndarray, modes: Sequence[str] = ()):
        self.rows = rows
        self.modes = list(modes)

    def put(self, index: int, image: Decoded) -> None:
        """Note what an image is."""
        if image.mode not in self.modes:
            self.modes.append(image.mode)
        row = self.rows[index]
        row["planes"], row["mode"] = len(image.pixels), self.modes.index(image.mode)
        row["size"], row["values"], row["limits"] = image.size, image.values, image.limits

    def image(self, index: int, pixels: np.ndarray) -> Decoded:
        """The image of a row, given uint8 [C, H, W] of at least its channels."""
        row = self.rows[index]
        height, width = row["size"].tolist()
        low, high = row["values"].tolist()
        lowest, highest = row["limits"].tolist()
        return Decoded(
            pixels[: row["planes"]], self.modes[row["mode"]], (height, width), (low, high), (lowest, highest)
        )

    def facts(self, indices: np.ndarray) -> dict[str, Any]:
        """How many of some images had which size and mode, the most frequent first; which numbers they held.

        Args:
            indices: int64 [N] of these images, at least one, ascending.

        Returns:
            sizes: of the most frequent, by "HEIGHTxWIDTH".
            other_sizes: how many more there were.
            modes: of all, by Pillow's names.
            values: the lowest and the highest number.
            limits: the ends of their range, the lowest and the highest of all images.
            filled: the share of this range that the numbers fill, where each image has the limits of its own.
            height, width, aspect: see `quantiles`.
        """
        rows = self.rows[indices]
        sizes = _counted(rows["size"].astype(np.uint64) @ np.array([1 << 32, 1], np.uint64))
        modes = _counted(rows["mode"])
        values, limits = rows["values"], rows["limits"]
        width = limits[:, 1:] - limits[:, :1]
        filled = (values - limits[:, :1]) / np.where(width > 0, width, 1)
        return {
            "sizes": {
                f"{int(size) >> 32}x{int(size) & 0xFFFFFFFF}": count for size, count in sizes[:LISTED_SIZES]
            },
            "other_sizes": max(0, len(sizes) - LISTED_SIZES),
            "modes": {self.modes[int(mode)]: count for mode, count in modes},
            "values": [float(values[:, 0].min()), float(values[:, 1].max())],
            "limits": [float(limits[:, 0].min()), float(limits[:, 1].max())],
            "filled": float(filled[:, 1].max() - filled[:, 0].min()),
            **quantiles(rows["size"]),
        }


def hashed(names: Sequence[str], states: Sequence[str]) -> np.ndarray:
    """A hash of each name and state, S16 [N]: what has another of either has another hash."""
    digests = (
        hashlib.blake2b(f"{name}\0{state}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
        for name, state in zip(names, states, strict=True)
    )
    return np.fromiter(digests, "S16", len(names))


def same(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Where each of `new` stands in `old`, int64 [N]; -1 where it does not, or either has it twice."""
    found = np.full(len(new), -1, np.int64)
    mine, theirs = _once(new), _once(old)
    _, at, where = np.intersect1d(new[mine], old[theirs], assume_unique=True, return_indices=True)
    found[mine[at]] = theirs[where]
    return found


def _once(values: np.ndarray) -> np.ndarray:
    _, first, counts = np.unique(values, return_index=True, return_counts=True)
    return first[counts == 1]


def _counted(values: np.ndarray) -> list[tuple[int, int]]:
    """Each value and how often it is there, the most frequent first; of those, the one that comes first."""
    found, first, counts = np.unique(values, return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    return list(zip(found[order].tolist(), counts[order].tolist(), strict=True))
