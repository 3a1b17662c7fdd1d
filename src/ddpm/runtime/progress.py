"""How far work is and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

import logging
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

log = logging.getLogger(__name__)

console = Console(stderr=True)
"""Where everything that is no result is said; one for all, so that lines and bars do not disturb each
other.
"""

SECONDS_BETWEEN_LINES = 15.0


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


class Countdown:
    """Shows done/total, a text and the time left, on whatever the output is. Use as a context manager.

    Args:
        title: what is going on.
        total: steps.
        done: steps that were done before.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self.title = title
        self.total = total
        self.first = self.done = done
        self.text = ""
        self._bar: Progress | None = None

    def __enter__(self) -> "Countdown":
        self._start = self._last_line = time.monotonic()
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, text="")
            self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def left(self) -> str:
        """The time left, from the speed so far."""
        now_done = self.done - self.first
        if now_done == 0:
            return ""
        return duration((time.monotonic() - self._start) / now_done * (self.total - self.done)) + " left"

    def advance(self, done: int, text: str | None = None) -> None:
        """`done` steps are done; `text` replaces what is said beside them."""
        self.done = done
        if text is not None:
            self.text = text
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=f"{self.text}  {self.left()}")
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES and done < self.total:
            self._last_line = time.monotonic()
            log.info("%s %d/%d  %s  %s", self.title, done, self.total, self.text, self.left())
