"""The variables of a TensorFlow checkpoint, read without TensorFlow.

`NAME.index` is a table of LevelDB whose values say, in the encoding of protocol buffers, where in
`NAME.data-XXXXX-of-XXXXX` each variable lies. Its blocks are not compressed, as TensorFlow writes them.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm import bounded

MOST_INDEX = 1 << 22
"""Bytes of an index: some hundred for each variable."""

MOST_ENTRIES, MOST_NAME = 50_000, 1000
"""Variables, and letters of the name of one, which may repeat that before it at no cost."""

MAGIC = 0xDB4775248B80FB57
DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}
"""Numbers of TensorFlow for types of weights; variables of others (steps, words) are left where they are."""

VARINT, BYTES = 0, 2
FIXED = {1: 8, 5: 4}
"""How a field of a protocol buffer is encoded, and how many bytes it has where that is fixed."""


class Entry(NamedTuple):
    """Where a variable lies."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def variables(index: Path) -> dict[str, Tensor]:
    """Every variable of floating-point numbers, by name.

    Args:
        index: the file `NAME.index`, beside its data.

    Raises:
        ValueError: where it is none, or its data are not there or another size.
    """
    try:
        table = bounded.contents(index, MOST_INDEX)
        shards, entries = _entries(table)
    except (struct.error, IndexError, KeyError, OverflowError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{index}: is no index of a TensorFlow checkpoint that can be read") from error
    found: dict[str, Tensor] = {}
    taken: dict[Path, int] = {}
    for name, entry in entries.items():
        data = index.with_suffix(f".data-{entry.shard:05}-of-{shards:05}")
        if entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
            raise ValueError(f"{index}: {name} of {list(entry.shape)} does not have {entry.size} bytes")
        bounded.beginning(data, 0)
        if entry.offset + entry.size > data.stat().st_size:
            raise ValueError(f"{data}: is truncated, {name} lies beyond its end")
        taken[data] = taken.get(data, 0) + entry.size
        if taken[data] > data.stat().st_size:  # else a small file could ask for any memory
            raise ValueError(f"{index}: {name} lies where other variables do")
        values = np.fromfile(data, entry.dtype, math.prod(entry.shape), offset=entry.offset)
        found[name] = torch.from_numpy(values.reshape(entry.shape))
    return found


def _entries(table: bytes) -> tuple[int, dict[str, Entry]]:
    """The number of data files, and the variables."""
    if len(table) < 48 or struct.unpack("<Q", table[-8:])[0] != MAGIC:
        raise KeyError("the end of a table")
    at = len(table) - 48
    _, at = _handle(table, at)  # of what is said about blocks
    blocks, _ = _handle(table, at)
    shards, count = 1, 0
    found: dict[str, Entry] = {}
    for _, handle in _block(table, *blocks):
        for key, value in _block(table, *_handle(handle, 0)[0]):
            if (count := count + 1) > MOST_ENTRIES:
                raise OverflowError("more variables than a network has")
            numbers, messages = _fields(value)
            if not key:
                shards = numbers.get(1, 1)
            elif numbers.get(1) in DTYPES:
                dims = _fields(messages[2][0])[1].get(2, []) if 2 in messages else []
                shape = tuple(_fields(dim)[0].get(1, 0) for dim in dims)
                place = [numbers.get(field, 0) for field in (3, 4, 5)]
                found[key.decode()] = Entry(DTYPES[numbers[1]], shape, *place)
    return shards, found


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys of a block, each of which repeats the beginning of the one before it, and their values."""
    if table[offset + size]:
        raise KeyError("a block that is not compressed")
    block = table[offset : offset + size]
    end = size - 4 - 4 * int(struct.unpack_from("<I", block, size - 4)[0])
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        if len(key) > MOST_NAME:
            raise OverflowError("a name that is longer than any")
        at += own
        yield key, block[at : at + length]
        at += length


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise OverflowError("a number of more than 64 bits")


def _fields(message: bytes) -> tuple[dict[int, int], dict[int, list[bytes]]]:
    """The fields of a protocol buffer by number: whole numbers; texts and messages, of which there may be
    several.
    """
    numbers: dict[int, int] = {}
    messages: dict[int, list[bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, encoding = tag >> 3, tag & 7
        if encoding == VARINT:
            numbers[field], at = _varint(message, at)
        elif encoding == BYTES:
            length, at = _varint(message, at)
            messages.setdefault(field, []).append(message[at : at + length])
            at += length
        else:
            at += FIXED[encoding]
    return numbers, messages
