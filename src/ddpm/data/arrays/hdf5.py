"""HDF5 files, and those of MATLAB 7.3, which are HDF5 with every shape turned round. Needs `ddpm[hdf5]`."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data.arrays.held import Held, Workspace, check_unpacked

MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB = b"MATLAB 7.3"
CACHED = 64 << 20
"""Bytes of unpacked chunks that are kept while a data set is read in order."""

STRINGS = 100
"""That are read together."""


def hdf5(file: Path, prefix: str, work: Workspace) -> list[Held]:
    """The data sets of a file, in whatever groups, which stays open until the workspace closes it.

    Links are not followed, nor is anything read that lies in other files.
    """
    return [_held(prefix + name, found) for name, found in _data_sets(file, work)]


def matlab(file: Path, prefix: str, work: Workspace) -> list[Held]:
    """The arrays of a file of MATLAB 7.3, in MATLAB's order: what is last there varies slowest."""
    return [
        _turned(_held(prefix + name, found), is_logical=found.attrs.get("MATLAB_class") == b"logical")
        for name, found in _data_sets(file, work)
        if not name.startswith("#") and found.attrs.get("MATLAB_class") not in (b"char", b"cell")
    ]


def _data_sets(file: Path, work: Workspace) -> list[tuple[str, Any]]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError("HDF5 is read with h5py: pip install 'ddpm[hdf5]'") from error

    opened = work.stack.enter_context(h5py.File(file, "r", rdcc_nbytes=CACHED))
    found: list[tuple[str, Any]] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None or item.is_virtual or item.external:
            return
        if item.dtype.hasobject and not h5py.check_string_dtype(item.dtype):
            return
        stored = item.id.get_storage_size()
        check_unpacked(stored, math.prod(item.shape) * item.dtype.itemsize)
        # One chunk may be larger than the data set, and is unpacked as a whole.
        check_unpacked(stored, math.prod(item.chunks or ()) * item.dtype.itemsize)
        found.append((name, item))

    opened.visititems(visit)
    return found


def _held(name: str, data_set: Any) -> Held:
    shape = tuple(data_set.shape)
    if data_set.dtype.hasobject:
        return Held(name, shape, np.dtype(str), lambda: _strings(data_set))
    part = (lambda first, last: np.asarray(data_set[first:last])) if shape else None
    return Held(name, shape, data_set.dtype, lambda: np.asarray(data_set[()]), part)


def _strings(data_set: Any) -> np.ndarray:
    """Strings of any length, many of which may be the same bytes of the file."""
    words: list[str] = []
    longest = 0
    for first in range(0, data_set.shape[0], STRINGS):
        block = np.ravel(data_set.asstr(errors="replace")[first : first + STRINGS]).tolist()
        longest = max(longest, *map(len, block))
        check_unpacked(data_set.file.id.get_filesize(), 4 * longest * data_set.size)
        words += block
    return np.array(words, dtype=str).reshape(data_set.shape)


def _turned(held: Held, *, is_logical: bool) -> Held:
    """An array with its axes the other way round; MATLAB keeps what is true or false as bytes."""
    dtype, part = np.dtype(np.bool_) if is_logical else held.dtype, held.part
    return Held(
        held.name,
        held.shape[::-1],
        dtype,
        lambda: held.read().T.astype(dtype, copy=False),
        None if part is None else lambda first, last: part(first, last).T.astype(dtype, copy=False),
        -1,
    )
