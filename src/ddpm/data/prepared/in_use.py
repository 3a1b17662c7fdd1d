"""Which files living processes use: a mark on a file, which ends with its owner, however that ends."""

import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

CAN_MOVE = sys.platform != "win32"
"""Whether a folder can be renamed while a file in it is open. Where it cannot, that alone protects it."""


class Mark:
    """Says that a file is in use: until it is ended or nobody holds it any more, or until this process and
    those that it forked are dead.

    Args:
        file: descriptor of the file, locked.
    """

    def __init__(self, file: int):
        self.end = weakref.finalize(self, os.close, file)


def mark(file: Path) -> Mark | None:
    """Mark a file as in use.

    Waits while another process removes the file. Where the file system knows no locks there is no mark, and
    `alone` says that it cannot tell.

    Returns:
        None where there is no such file, or no longer.
    """
    try:
        opened = os.open(file, os.O_RDONLY)
    except OSError:
        return None
    found = Mark(opened)
    if sys.platform != "win32":  # there a file that is open cannot be removed
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_SH)
    try:
        is_there = os.path.samestat(os.fstat(opened), file.stat())
    except OSError:
        is_there = False
    return found if is_there else None


@contextmanager
def alone(file: Path) -> Iterator[bool | None]:
    """Whether nobody has marked a file; who asks for a mark now waits for the end of the context.

    Yields:
        None where the file system knows no locks.

    Raises:
        OSError: where there is no such file.
    """
    if not CAN_MOVE:  # nor can what this process opens
        file.stat()
        yield True
        return
    opened = os.open(file, os.O_RDWR if os.access(file, os.W_OK) else os.O_RDONLY)
    try:
        found: bool | None = True
        if sys.platform != "win32":
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found = False
            except OSError:
                found = None
        yield found
    finally:
        os.close(opened)
