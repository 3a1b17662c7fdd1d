"""Files that are whole or not there, and what becomes of them where the disk refuses.

A disk may be full, over a quota, read-only, somebody else's or broken: to a run all of these are the same.
What a command was started for is written by `whole`, and is refused with `WriteError`. What a run writes
beside its training goes through `write`, which keeps what is refused and tries again with what comes next.
"""

import errno
import json
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a place that may take more later."""

MOST_KEPT = 2**28
"""Bytes of refused files that are kept in memory; beyond them the oldest are lost."""


FLUSHED_AT_ONCE = 16
"""Files of a folder: each flush alone waits for the disk."""


class WriteError(OSError):
    """A file could not be written: says which and why, in words that need no traceback."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Have a file appear under its name when it is whole, or not at all.

    Yields:
        the path to write to, beside it and of the same suffix. When the context ends the file is flushed and
        renamed; where it does not end well nothing is left.

    Raises:
        WriteError: for every OSError, also for one that is raised inside.
    """
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, WriteError):
            raise WriteError(f"{path}: cannot be written ({reason(error)})") from error
        raise


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Have a folder of files appear under its name when all of them are whole, or not at all.

    Args:
        path: of the folder, which is not there.

    Yields:
        a new folder to write the files to, beside it. When the context ends the files are flushed and the
        folder is renamed; where it does not end well nothing is left. What a killed process left of it goes.

    Raises:
        WriteError: for every OSError, also for one that is raised inside.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        with ThreadPoolExecutor(FLUSHED_AT_ONCE) as pool:
            for _ in pool.map(_flush, temporary.iterdir()):
                pass  # raises what a flush does
        temporary.rename(path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and not isinstance(error, WriteError):
            raise WriteError(f"{path}: cannot be written ({reason(error)})") from error
        raise


def write_whole(path: Path, contents: bytes | str) -> None:
    """Write a file whole, in place of what is there.

    Raises:
        WriteError: as `whole`.
    """
    with whole(path) as temporary:
        temporary.write_bytes(_encoded(contents))


def readable_json(values: Mapping[str, Any]) -> str:
    """JSON that a person reads: letters of any script as they are. Half of a surrogate pair, which a name
    that is not UTF-8 becomes, is an escape.
    """
    written = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", written)


def write(path: Path, contents: bytes | str) -> bool:
    """Write a file whole, and those that were refused before; whether all of them are written.

    What is refused is told in a line each time, and kept for the next time. A file that is written again has
    the contents that it was given last.
    """
    with _lock:
        _kept.pop(path, None)
        _kept[path] = _encoded(contents)
        return not write_again()


def write_again() -> list[Path]:
    """Try once more what was refused; the files that still are."""
    with _lock:
        for path, contents in list(_kept.items()):
            try:
                write_whole(path, contents)
            except WriteError as error:
                log.warning("%s; it is kept in memory, and written when there is room", error)
            else:
                del _kept[path]
        while _kept and sum(map(len, _kept.values())) > MOST_KEPT:
            path = next(iter(_kept))
            log.warning("%s is lost: more than %d MB wait to be written", path, MOST_KEPT // 10**6)
            del _kept[path]
        return list(_kept)


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_kept: dict[Path, bytes] = {}
"""What the disk refused, of this process; in the order in which it came."""

_lock = threading.RLock()


def _flush(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _encoded(contents: bytes | str) -> bytes:
    return contents if isinstance(contents, bytes) else contents.encode("utf-8")
