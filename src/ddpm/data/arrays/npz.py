"""NumPy's own files: npy, which holds an array, and npz, a zip of them. Pickled objects are never loaded."""

import math
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from ddpm.data.arrays.held import Held, Workspace, check_unpacked, in_stream

MAGIC = b"\x93NUMPY"
PICKLED = "holds pickled objects, which could run any code and are not read; save plain arrays"


def npy(file: Path, name: str, work: Workspace) -> list[Held]:
    """The array of an npy file."""
    return [_array(name, work.stack.enter_context(file.open("rb")), file.stat().st_size)]


def npz(file: Path, prefix: str, work: Workspace) -> list[Held]:
    """The arrays of an npz file, which stays open until the workspace closes it."""
    archive = work.stack.enter_context(zipfile.ZipFile(file))
    members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
    check_unpacked(file.stat().st_size, sum(info.file_size for info in members))
    return [
        _array(
            prefix + info.filename.removesuffix(".npy"),
            work.stack.enter_context(archive.open(info)),
            info.file_size,
        )
        for info in members
    ]


def is_npz(file: Path) -> bool:
    """Whether there is an npy file in a zip file."""
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith(".npy") for name in archive.namelist())


def _array(name: str, stream: IO[bytes], size: int) -> Held:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is of version {version[0]}.{version[1]}, which holds no plain numbers")
    shape, fortran_order, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError(f"{name} {PICKLED}")
    start = stream.tell()
    expected = start + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size < expected:
        raise ValueError(f"{name} is cut short: {expected:,} bytes are expected, {size:,} are there")
    return in_stream(name, stream, start, dtype, shape, fortran_order=fortran_order)
