"""An array that a file holds: what is known of it before it is read, and how it is read."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ddpm.data import bounds

BLOCK = 1 << 24
"""Bytes of an array that are read together."""


class Workspace(NamedTuple):
    """What reading files needs.

    Attributes:
        folder: for what has to be written meanwhile.
        stack: closes what stays open.
    """

    folder: Path
    stack: ExitStack


@dataclass(frozen=True)
class Held:
    """An array in a file.

    Attributes:
        name: its own, after that of its file where several files hold arrays, with `/` between.
        shape: of the array.
        dtype: of its numbers or strings.
        read: reads all of it.
        part: reads items first up to, and not with, last along `axis`, and no others; None where only the
            whole can be read.
        axis: 0, or -1 for the last.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    part: Callable[[int, int], np.ndarray] | None = None
    axis: int = 0

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} {list(self.shape)}"

    def blocks(self, axis: int) -> Iterator[tuple[int, np.ndarray]]:
        """All of it, a few megabytes at a time.

        Args:
            axis: along which it is cut, 0 or -1, which comes first in what is returned.

        Returns:
            the number of the first item of each block, and the block.
        """
        count = self.shape[axis]
        size = math.prod(self.shape) // max(1, count) * self.dtype.itemsize
        at_once = max(1, BLOCK // max(1, size))
        part = self.part
        if part is None or axis % len(self.shape) != self.axis % len(self.shape):
            whole = np.moveaxis(self.read(), axis, 0)
            yield from ((first, whole[first : first + at_once]) for first in range(0, count, at_once))
            return
        for first in range(0, count, at_once):
            yield first, np.moveaxis(part(first, min(first + at_once, count)), axis, 0)


def in_memory(name: str, array: np.ndarray) -> Held:
    """An array that is there already."""
    return Held(name, array.shape, array.dtype, lambda: array, lambda first, last: array[first:last])


def in_stream(
    name: str,
    stream: IO[bytes],
    offset: int,
    dtype: np.dtype,
    shape: Sequence[int],
    *,
    fortran_order: bool = False,
) -> Held:
    """An array whose bytes lie one after the other in a file.

    Args:
        name: of the array.
        stream: open for reading; may be one that finds its way back only by starting again.
        offset: of the first byte of the array.
        dtype: no objects.
        shape: of the array.
        fortran_order: the first index moves fastest.
    """
    shape = tuple(shape)
    stored = shape[::-1] if fortran_order else shape
    row = math.prod(stored[1:]) * dtype.itemsize

    def part(first: int, last: int) -> np.ndarray:
        stream.seek(offset + first * row)
        wanted = (last - first) * row
        contents = stream.read(wanted)
        if len(contents) != wanted:
            raise ValueError(f"it ends {wanted - len(contents):,} bytes early")
        array = np.frombuffer(contents, dtype).reshape(last - first, *stored[1:])
        return array.T if fortran_order else array

    def read() -> np.ndarray:
        if stored:
            return part(0, stored[0])
        stream.seek(offset)
        return np.frombuffer(stream.read(dtype.itemsize), dtype).reshape(())

    return Held(name, shape, dtype, read, part if stored else None, -1 if fortran_order else 0)


def check_unpacked(packed: int, unpacked: int) -> None:
    """Refuse, with ValueError, what `bounds.is_too_much` says of."""
    if bounds.is_too_much(unpacked, packed):
        raise ValueError(
            f"it would unpack from {packed:,} bytes to {unpacked:,} or more; at most {bounds.MOST_TIMES} "
            "times the size is unpacked here, so unpack it first if it is meant to be so"
        )
