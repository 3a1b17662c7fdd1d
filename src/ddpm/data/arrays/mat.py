"""MATLAB's files up to version 7, read by SciPy; those of 7.3 are HDF5."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ddpm.data.arrays.held import BLOCK, Held, check_unpacked, in_memory

MAGIC = b"MATLAB 5.0"
HEADER = 128
COMPRESSED = 15
NUMBERS = {
    "double": "f8",
    "single": "f4",
    "logical": "?",
    **{f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)},
}
"""The classes of MATLAB that are numbers, as NumPy's types."""


def mat(file: Path, prefix: str, stack: ExitStack) -> list[Held]:
    """The arrays of numbers, the cells of strings, and what of both is in structs, with `/` between names."""
    from scipy.io import loadmat, whosmat

    _check_size(file)
    held = []
    for name, shape, kind in whosmat(file, appendmat=False):
        if kind in NUMBERS:

            def read(name: str = name) -> np.ndarray:
                array = loadmat(file, appendmat=False, variable_names=[name], mat_dtype=True)[name]
                if array.dtype.kind not in "buif":
                    raise ValueError(f"{name} holds numbers of type {array.dtype}")
                return np.asarray(array)

            held.append(Held(prefix + name, tuple(shape), np.dtype(NUMBERS[kind]), read))
        elif kind in ("struct", "cell", "char"):
            value = loadmat(file, appendmat=False, variable_names=[name], mat_dtype=True)[name]
            held += _within(prefix + name, value)
    return held


def _within(name: str, value: object) -> Iterator[Held]:
    """What is in a struct, a cell or an array of letters."""
    if not isinstance(value, np.ndarray):
        return
    if value.dtype.names is not None and value.size == 1:
        for field in value.dtype.names:
            yield from _within(f"{name}/{field}", value[field].item())
    elif value.dtype.kind == "O":
        words = [item.item() for item in value.ravel() if isinstance(item, np.ndarray) and item.size == 1]
        if len(words) == value.size and all(isinstance(word, str) for word in words):
            yield in_memory(name, np.array(words, dtype=str))
    elif value.dtype.kind == "U":
        yield in_memory(name, np.char.rstrip(value))
    elif value.dtype.kind in "buif":
        yield in_memory(name, value)


def _check_size(file: Path) -> None:
    """Unpack the compressed variables of a file of version 5, and count only."""
    size = file.stat().st_size
    total = 0
    with file.open("rb") as opened:
        header = opened.read(HEADER)
        if not header.startswith(MAGIC):
            return
        order = ">" if header.endswith(b"MI") else "<"
        while len(tag := opened.read(8)) == 8:
            kind, length = struct.unpack(f"{order}2I", tag)
            if kind != COMPRESSED:
                opened.seek(length, 1)
                continue
            unpacking = zlib.decompressobj()
            packed = b""
            while not unpacking.eof:
                packed = unpacking.unconsumed_tail or opened.read(min(BLOCK, length))
                length -= 0 if unpacking.unconsumed_tail else len(packed)
                if not packed:
                    break
                total += len(unpacking.decompress(packed, BLOCK))
                check_unpacked(size, total)
            opened.seek(length, 1)
