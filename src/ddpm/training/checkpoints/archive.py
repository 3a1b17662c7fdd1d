"""The records of a file that `torch.save` wrote: a zip archive that stores them as they are.

Python's own reader builds an object of a kilobyte for each record, however many a file says to have, and
lets them share bytes; torch's unpacks what is compressed and does not look at the checksums. Here a file is
refused whose records are compressed, overlap or exceed it, so that all of them together take no more memory
than the file has bytes.
"""

import hashlib
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

MAX_RECORDS = 200_000
"""Records of a file: a network has a few for each of its parameters."""

PIECE = 1 << 23
"""Bytes that are read at once, few enough to be in the processor's cache when they are summed."""


class RefusedFileError(ValueError):
    """A file is damaged, or asks for what reading tensors does not need. Says why in a few words."""


class Record(NamedTuple):
    """Where the bytes of a record lie in the file."""

    start: int
    size: int
    crc: int


def records(file: BinaryIO) -> dict[str, Record]:
    """Where the records lie, by name.

    Raises:
        RefusedFileError: where the file is no such archive.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        start, length, count = _directory(file, size)
        if count > MAX_RECORDS or length > MAX_RECORDS * 200:
            raise RefusedFileError(f"it has {count} records")
        directory = _read(file, start, length)
        found: dict[str, Record] = {}
        at = 0
        for _ in range(count):
            name, method, crc, stored, unpacked, offset, at = _entry(directory, at)
            if method or stored != unpacked:
                raise RefusedFileError("a record is compressed")
            if name in found:
                raise RefusedFileError("two records have one name")
            found[name] = Record(_begin(file, offset, name), stored, crc)
    except (struct.error, UnicodeDecodeError) as error:
        raise RefusedFileError("its table of records is damaged") from error
    end = 0
    for record in sorted(found.values()):
        if record.start < end:
            raise RefusedFileError("records overlap")
        end = record.start + record.size
    if end > start:
        raise RefusedFileError("a record is longer than the file")
    return found


def fingerprint(path: Path) -> str:
    """Of the contents of a file, by the checksums that it states.

    Raises:
        RefusedFileError: where it is no such archive.
        OSError: where it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        found = sorted(
            (name.partition("/")[2], record.size, record.crc) for name, record in records(file).items()
        )
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the table of records begins, its bytes, and its number of records."""
    if size < 22:
        raise RefusedFileError("it is empty" if not size else "it is too short for a checkpoint")
    sign, *_, count, length, start, comment = struct.unpack("<4s4H2LH", _read(file, size - 22, 22))
    if sign != b"PK\5\6" or comment:
        raise RefusedFileError("it ends as no file of torch.save does")
    if size >= 98:
        sign, _, where, _ = struct.unpack("<4sLQL", _read(file, size - 42, 20))
        if sign == b"PK\6\7":
            sign, *_, count, length, start = struct.unpack("<4sQ2H2L4Q", _read(file, where, 56))
            if sign != b"PK\6\6":
                raise RefusedFileError("its table of records is damaged")
    if start + length > size:
        raise RefusedFileError("its table of records is damaged")
    return start, length, count


def _entry(directory: bytes, at: int) -> tuple[str, int, int, int, int, int, int]:
    """Name, method, CRC-32, stored and unpacked size and offset of a record; where the next entry begins."""
    fields = struct.unpack_from("<4s4B4HL2L5H2L", directory, at)
    sign, method, crc, stored, unpacked = fields[0], fields[6], *fields[9:12]
    name_length, extra_length, comment_length, offset = *fields[12:15], fields[18]
    if sign != b"PK\1\2":
        raise RefusedFileError("its table of records is damaged")
    at += 46
    name = directory[at : at + name_length].decode()
    extra = directory[at + name_length : at + name_length + extra_length]
    while len(extra) >= 4:  # zip64 keeps sizes there that need more than 32 bits
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            large = iter(struct.unpack_from(f"<{length // 8}Q", extra, 4))
            most = 0xFFFFFFFF
            unpacked, stored, offset = (
                next(large, most) if value == most else value for value in (unpacked, stored, offset)
            )
        extra = extra[4 + length :]
    return name, method, crc, stored, unpacked, offset, at + name_length + extra_length + comment_length


def _begin(file: BinaryIO, offset: int, name: str) -> int:
    """Where the bytes of a record begin."""
    fields = struct.unpack("<4s2B4HL2L2H", _read(file, offset, 30))
    sign, method, name_length, extra_length = fields[0], fields[4], *fields[10:12]
    if sign != b"PK\3\4" or method or _read(file, offset + 30, name_length) != name.encode():
        raise RefusedFileError("a record is not where the table says")
    return int(offset + 30 + name_length + extra_length)


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    if start + length > os.fstat(file.fileno()).st_size:
        raise RefusedFileError("it is truncated")
    file.seek(start)
    return file.read(length)


def read(file: BinaryIO, record: Record) -> Tensor:
    """The bytes of a record, uint8 [size].

    Raises:
        RefusedFileError: where their CRC-32 is not the one that the archive states.
    """
    data = torch.empty(record.size, dtype=torch.uint8)
    whole: Any = data.numpy()  # numpy's type hints do not know that it is a buffer
    view = memoryview(whole)
    file.seek(record.start)
    crc, done = 0, 0
    while done < record.size:
        count = file.readinto(view[done : done + PIECE])  # type: ignore[attr-defined]  # of a raw file
        if not count:
            raise RefusedFileError("it is truncated")
        crc = zlib.crc32(view[done : done + count], crc)
        done += count
    if crc != record.crc:
        raise RefusedFileError("its content is damaged, a checksum differs")
    return data
