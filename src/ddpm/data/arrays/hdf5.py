"""HDF5 files, and those of MATLAB 7.3, which are HDF5 with every shape turned round. Needs `ddpm[hdf5]`."""

import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data.arrays.held import Held, check_unpacked

MAGIC = b"\x89HDF\r\n\x1a\n"
MATLAB = b"MATLAB 7.3"
CACHED = 64 << 20
"""Bytes of unpacked chunks that are kept while a data set is read in order."""


def hdf5(file: Path, prefix: str, stack: ExitStack) -> list[Held]:
    """The data sets of a file, in whatever groups, which stays open until `stack` closes it.

    Links are not followed, nor is anything read that lies in other files.
    """
    return [_held(prefix + name, found) for name, found in _data_sets(file, stack)]


def matlab(file: Path, prefix: str, stack: ExitStack) -> list[Held]:
    """The arrays of a file of MATLAB 7.3, in MATLAB's order: what is last there varies slowest."""
    return [
        _turned(_held(prefix + name, found))
        for name, found in _data_sets(file, stack)
        if not name.startswith("#") and found.attrs.get("MATLAB_class") not in (b"char", b"cell")
    ]


def _data_sets(file: Path, stack: ExitStack) -> list[tuple[str, Any]]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError("HDF5 is read with h5py: pip install 'ddpm[hdf5]'") from error

    opened = stack.enter_context(h5py.File(file, "r", rdcc_nbytes=CACHED))
    found: list[tuple[str, Any]] = []

    def visit(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.shape is None or item.is_virtual or item.external:
            return
        text = h5py.check_string_dtype(item.dtype)
        if item.dtype.hasobject and text is None:
            return
        stored = item.id.get_storage_size()
        check_unpacked(stored, math.prod(item.shape) * item.dtype.itemsize)
        # One chunk may be larger than the data set, and is unpacked as a whole.
        check_unpacked(stored, math.prod(item.chunks or ()) * item.dtype.itemsize)
        found.append((name, item if text is None else item.asstr(errors="replace")))

    opened.visititems(visit)
    return found


def _held(name: str, data_set: Any) -> Held:
    shape = tuple(data_set.shape)
    part = (lambda first, last: np.asarray(data_set[first:last])) if shape else None
    return Held(name, shape, data_set.dtype, lambda: np.asarray(data_set[()]), part)


def _turned(held: Held) -> Held:
    part = held.part
    return Held(
        held.name,
        held.shape[::-1],
        held.dtype,
        lambda: held.read().T,
        None if part is None else lambda first, last: part(first, last).T,
        -1,
    )
