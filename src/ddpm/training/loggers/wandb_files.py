"""What earlier starts left of an offline W&B run, made to fit together, so that `wandb sync` makes one run.

W&B writes its file in blocks: of a process that was killed the last record is torn, and where `wandb sync`
meets one it leaves out all later starts of the run. And what such a start had logged after its last
checkpoint comes again in the next.
"""

import importlib
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = 32_768
HEADER = 7
"""Bytes before the first record, and before each piece of one: checksum, length, kind."""

WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
"""Kinds of pieces, those of LevelDB's log: a record, or its parts where it reaches over a block's end."""


def mend(directory: Path, until: int | None = None) -> None:
    """Cut off the end of a run that nobody writes any more: what is torn, and what comes again.

    One that is uploaded already stays as it is.

    Args:
        directory: of W&B's, `offline-run-...`.
        until: the first step that comes again; None where none does.
    """
    for file in directory.glob("run-*.wandb"):
        if file.with_suffix(".wandb.synced").exists():
            continue
        with file.open("r+b") as opened:
            found = list(_records(opened))
            end = found[-1][1] if found else min(HEADER, file.stat().st_size)
            for start, step in _steps(opened, [start for start, _ in reversed(found)]):
                if until is None or step < until:
                    break
                end = start
            opened.truncate(end)


def is_whole(directory: Path) -> bool:
    """Whether anything was logged to a directory, and no record is torn."""
    sizes = [(end_of_records(file), file.stat().st_size) for file in directory.glob("run-*.wandb")]
    return bool(sizes) and all(HEADER < end == size for end, size in sizes)


def end_of_records(file: Path) -> int:
    """Where the last whole record of a `.wandb` file ends, in bytes from its begin."""
    with file.open("rb") as opened:
        ends = [end for _, end in _records(opened)]
    return ends[-1] if ends else min(HEADER, file.stat().st_size)


def first_step(directory: Path) -> int | None:
    """The step of the first row that was logged to a directory of W&B's; None where there is none."""
    return next(_rows(directory, reverse=False), None)


def last_step(directory: Path) -> int | None:
    """The step of the last one."""
    return next(_rows(directory, reverse=True), None)


def _rows(directory: Path, *, reverse: bool) -> Iterator[int]:
    for file in directory.glob("run-*.wandb"):
        with file.open("rb") as opened:
            starts = [start for start, _ in _records(opened)]
            for _, step in _steps(opened, reversed(starts) if reverse else starts):
                yield step


def _steps(file: BinaryIO, starts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Of the records that begin at these places: where each row begins, and its step."""
    protocol: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    for start in starts:
        record = protocol.Record()
        record.ParseFromString(_content(file, start))
        if record.WhichOneof("record_type") == "history":
            yield start, record.history.step.num


def _records(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Where each whole record begins, its first header included, and ends."""
    start = None
    for place, length, kind in _pieces(file, HEADER):
        if kind in (WHOLE, FIRST):
            start = place
        if kind in (WHOLE, LAST) and start is not None:
            yield start, place + HEADER + length


def _content(file: BinaryIO, start: int) -> bytes:
    """The record that begins at a place."""
    content = b""
    for place, length, kind in _pieces(file, start):
        file.seek(place + HEADER)
        content += file.read(length)
        if kind in (WHOLE, LAST):
            break
    return content


def _pieces(file: BinaryIO, place: int) -> Iterator[tuple[int, int, int]]:
    """The pieces from a place on: where each begins, bytes after its header, and kind. Up to a torn one."""
    size = file.seek(0, 2)
    while True:
        if (left := BLOCK - place % BLOCK) < HEADER:  # too little for a piece
            place += left
        file.seek(place)
        header = file.read(HEADER)
        if len(header) < HEADER:
            return
        _, length, kind = struct.unpack("<IHB", header)
        if not WHOLE <= kind <= LAST or place + HEADER + length > size:
            return
        yield place, length, kind
        place += HEADER + length
