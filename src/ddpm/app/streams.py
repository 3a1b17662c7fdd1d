"""Standard output and standard error whose reader goes away, or whose disk is full: the work goes on.

Python raises there, `print` and `logging` each in their own way, and ends with 120 where it notices at the
very end only. Here nobody above the file descriptor ever sees it.
"""

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ddpm.runtime.writing import FULL

_listeners: list[Callable[[str], None]] = []
_untold: list[str] = []


def tell_when_closed(tell: Callable[[str], None]) -> None:
    """Say where it is told, in a sentence, that a stream was closed from the other side; before or later."""
    _listeners[:] = [tell]
    while _untold:
        tell(_untold.pop(0))


class _Unfailing(io.FileIO):
    """Writes to a descriptor, and drops what cannot be written.

    Once its reader is gone the descriptor itself leads to nowhere: libraries write to it too, and what is
    opened next must not get its number.
    """

    def __init__(self, descriptor: int, name: str):
        super().__init__(descriptor, "w", closefd=False)
        self.name = name

    def write(self, contents: Any, /) -> int:
        try:
            while (written := super().write(contents)) is None:  # somebody set it not to block
                select.select([], [self.fileno()], [])
            return written
        except OSError as error:
            if error.errno not in FULL:  # nobody will read any more
                self._lead_nowhere(error)
            return memoryview(contents).nbytes

    def _lead_nowhere(self, error: OSError) -> None:
        _lead_nowhere(self.fileno())
        title = "standard output" if self.fileno() == 1 else "standard error"
        _untold.append(f"{title} is closed ({error.strerror}): the work goes on")
        if _listeners:
            tell_when_closed(_listeners[0])


def make_unfailing() -> None:
    """Let no write to standard output or standard error fail from here on, whoever prints, logs or draws.

    Doing it twice is doing it once. Streams that somebody has put in their place (a notebook, a test) stay.
    """
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:  # the program was started without
            with suppress(OSError):
                os.fstat(descriptor)
                continue  # something else has its number
            _lead_nowhere(descriptor)
            stream = io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), "utf-8", "backslashreplace")
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)
        if type(raw) is not io.FileIO or raw.fileno() != descriptor:
            continue
        with suppress(Exception):
            stream.flush()
        unfailing = _Unfailing(descriptor, f"<{name}>")
        made = io.TextIOWrapper(
            unfailing if raw is buffer else io.BufferedWriter(unfailing),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
