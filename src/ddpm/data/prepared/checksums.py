"""What tells whether a file is as it was written. Against damage, not against a person.

CRC-32 is the one that keeps up with memory: 10 GB take a few seconds, so that all of an entry is verified
each time it is opened. It notices every change within 32 bits, and one in four billion others escapes it.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

BLOCK = 1 << 22
"""Bytes that are read together."""


def of_file(file: Path) -> str:
    """The checksum of all bytes of a file, 8 hexadecimal digits.

    It is read, not mapped: the system would count what was read as memory of this process.
    """
    buffer = memoryview(bytearray(BLOCK))
    checksum = 0
    with file.open("rb", buffering=0) as opened:
        while size := opened.readinto(buffer):
            checksum = zlib.crc32(buffer[:size], checksum)
    return f"{checksum:08x}"


def of_values(values: Any) -> str:
    """The checksum of plain containers as json holds them, 16 hexadecimal digits."""
    written = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()[:16]
