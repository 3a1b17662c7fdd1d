"""What a killed process left of an offline W&B run, made whole, so that `wandb sync` uploads what follows it.

W&B writes its file in blocks: of a process that was killed the last record is torn, and where `wandb sync`
meets one it leaves out all later starts of the run.
"""

import struct
from pathlib import Path

BLOCK = 32_768
HEADER = 7
"""Bytes before the first record, and before each piece of one: checksum, length, kind."""

WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Kinds of pieces, those of LevelDB's log: a record, or its parts where it reaches over a block's end."""


def mend(directory: Path) -> bool:
    """Cut off the torn end of a run that nobody writes any more.

    Args:
        directory: of W&B's, `offline-run-...`.

    Returns:
        Whether anything was logged there.
    """
    found = False
    for file in directory.glob("run-*.wandb"):
        end = end_of_records(file)
        if end < file.stat().st_size:
            with file.open("r+b") as opened:
                opened.truncate(end)
        found = found or end > HEADER
    return found


def end_of_records(file: Path) -> int:
    """Where the last whole record of a `.wandb` file ends, in bytes from its begin."""
    size = file.stat().st_size
    end = place = min(HEADER, size)
    with file.open("rb") as opened:
        while True:
            if (left := BLOCK - place % BLOCK) < HEADER:  # too little for a piece
                place += left
            opened.seek(place)
            header = opened.read(HEADER)
            if len(header) < HEADER:
                return end
            _, length, kind = struct.unpack("<IHB", header)
            place += HEADER + length
            if not WHOLE <= kind <= LAST or place > size:
                return end
            if kind in (WHOLE, LAST):
                end = place
