"""MATLAB's files up to version 7, read by SciPy; those of 7.3 are HDF5."""

import json
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from ddpm.data.arrays.held import BLOCK, Held, Workspace, check_unpacked
from ddpm.data.arrays.npz import npy

MAGIC = b"MATLAB 5.0"
HEADER = 128
COMPRESSED = 15
PACKED = 1 << 16
LEAST = 1 << 28
MOST_COPIES = 32
"""Bytes that SciPy may use, and as many times what a file holds: bytes may be doubles, and copied."""

TO_BEGIN = 300.0
"""Seconds that the process that reads has beside those for the bytes."""

LEAST_SPEED = 1e6
"""Bytes a second, of what a file holds, as which a reader that still reads is faster."""

READER = Path(__file__).with_name("mat_reader.py")


def mat(file: Path, prefix: str, work: Workspace) -> list[Held]:
    """The arrays of numbers, the cells of strings, and what of both is in structs, with `/` between names."""
    size = _unpacked_size(file)
    folder = Path(tempfile.mkdtemp(dir=work.folder))
    command = [sys.executable, "-P", str(READER), str(file), str(folder), str(LEAST + MOST_COPIES * size)]
    limit = TO_BEGIN + size / LEAST_SPEED
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"SciPy has not read it within {limit:.0f} s, and is stopped") from None
    if process.returncode:
        said = process.stderr.strip().splitlines() if process.returncode > 0 else []
        raise ValueError(said[-1] if said else "it is damaged, and SciPy crashed at it")
    if file.stat().st_size <= HEADER and file.read_bytes().startswith(MAGIC):  # fine to SciPy
        raise ValueError("it ends behind its header")
    names = json.loads((folder / "names.json").read_text(encoding="utf-8"))
    return [held for i, name in enumerate(names) for held in npy(folder / f"{i}.npy", prefix + name, work)]


def _unpacked_size(file: Path) -> int:
    """Bytes of a file, and of the compressed variables of version 5, which are unpacked and counted only.

    Raises:
        ValueError: where they are far more than they should be.
    """
    total = 0
    with file.open("rb") as opened:
        header = opened.read(HEADER)
        if not header.startswith(MAGIC):
            return file.stat().st_size
        order = ">" if header.endswith(b"MI") else "<"
        while len(tag := opened.read(8)) == 8:
            kind, length = struct.unpack(f"{order}2I", tag)
            after = opened.tell() + length
            unpacking = zlib.decompressobj()
            while kind == COMPRESSED and not unpacking.eof:
                packed = unpacking.unconsumed_tail or opened.read(min(PACKED, after - opened.tell()))
                if not packed:
                    break
                total += len(unpacking.decompress(packed, BLOCK))
                check_unpacked(opened.tell(), total)
            opened.seek(after)
    return file.stat().st_size + total
