"""idx, the format of MNIST and its kin (yann.lecun.com/exdb/mnist): a header, and big-endian numbers."""

import gzip
import math
import struct
from pathlib import Path
from typing import IO, cast

import numpy as np

from ddpm.data.arrays.held import BLOCK, Held, Workspace, check_unpacked, in_stream

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
MOST_AXES = 5


def is_idx(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in TYPES and 1 <= head[3] <= MOST_AXES


def idx(file: Path, name: str, work: Workspace, *, compressed: bool) -> list[Held]:
    """The array of an idx file, which stays open until the workspace closes it.

    Raises:
        ValueError: where it holds fewer or more bytes than its header promises.
    """
    opened = gzip.GzipFile(file) if compressed else file.open("rb")
    stream = cast(IO[bytes], work.stack.enter_context(opened))
    head = stream.read(4)
    sizes = stream.read(4 * head[3])
    if len(sizes) != 4 * head[3]:
        raise ValueError("it ends within its header")
    shape = struct.unpack(f">{head[3]}I", sizes)
    dtype = np.dtype(TYPES[head[2]])
    start = 4 + len(sizes)
    expected = start + math.prod(shape) * dtype.itemsize
    found = file.stat().st_size
    if compressed:
        check_unpacked(found, expected)
        found = start
        while found <= expected and (block := stream.read(min(BLOCK, expected + 1 - found))):
            found += len(block)
    if found != expected:
        more = " or more" if compressed and found > expected else ""
        raise ValueError(f"{expected:,} bytes are expected{_unpacked(compressed)}, {found:,}{more} are there")
    return [in_stream(name, stream, start, dtype, shape)]


def _unpacked(compressed: bool) -> str:
    return " unpacked" if compressed else ""
