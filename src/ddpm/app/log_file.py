"""A run's log file, whose lines wait in memory while the disk refuses them."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ddpm.runtime.writing import reason

MOST_WAITING = 2**22
"""Bytes of lines that wait; beyond them the oldest are lost."""


class LogFile(logging.Handler):
    """Appends lines to a file, each as soon as it comes.

    Args:
        path: of the file; made when the first line comes.
        tell: is given a sentence when the file is refused for the first time, and when it is written again.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]):
        super().__init__()
        self.path = path
        self.tell = tell
        self._file: int | None = None
        self._waiting = b""
        self._refused = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting += (self.format(record) + "\n").encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        try:
            self._write()
        except OSError as error:
            if len(self._waiting) > MOST_WAITING:
                self._waiting = self._waiting[-MOST_WAITING:].partition(b"\n")[2]
            if not self._refused:
                self._refused = True
                self.tell(f"{self.path}: cannot be written ({reason(error)}); its lines wait for room")
        else:
            if self._refused:
                self._refused = False
                self.tell(f"{self.path}: is written again")

    def _write(self) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        while self._waiting:
            self._waiting = self._waiting[os.write(self._file, self._waiting) :]

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a file system may say only now that it is full
                os.close(self._file)
            self._file = None
        super().close()
