"""How far work is and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

import logging
import os
import time
from collections import deque
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

log = logging.getLogger(__name__)

console = Console(stderr=True)
"""Where everything that is no result is said; one for all, so that lines and bars do not disturb each
other.
"""

if hasattr(os, "register_at_fork"):
    # a worker has neither the bar nor the thread that draws it, which may hold one of the locks at the fork
    # (mypy warns of __init__ on an object, which could be of a class with other arguments: this one is not)
    os.register_at_fork(after_in_child=lambda: console.__init__(stderr=True))  # type: ignore[misc]

SECONDS_BETWEEN_LINES = 15.0

RECENT = 60.0
"""Seconds whose speed says how long the rest takes: a machine that others use too changes its speed."""

MARKS = 30
"""As many times within these seconds it is noted how far the work is."""


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
        total: steps; negative where there is no end in sight.
        done: steps that were done before.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self.title = title
        self.total = total
        self.done = done
        self.text = ""
        self._bar: Progress | None = None
        self._marks: deque[tuple[float, int]] = deque()

    def __enter__(self) -> "Countdown":
        self._last_line = time.monotonic()
        self._marks.append((self._last_line, self.done))
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            total = self.total if self.total >= 0 else None
            self._task = self._bar.add_task(self.title, total=total, completed=self.done, text="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def seconds_left(self) -> float | None:
        """From the recent speed; None where there is none yet, or no end."""
        then, done_then = self._marks[0]
        if self.done == done_then or self.total < 0:
            return None
        return (time.monotonic() - then) / (self.done - done_then) * (self.total - self.done)

    def left(self) -> str:
        """The time left, in words; nothing where it is not known."""
        seconds = self.seconds_left()
        return "" if seconds is None else duration(seconds) + " left"

    def advance(self, done: int, text: str | None = None) -> None:
        """`done` steps are done; `text` replaces what is said beside them."""
        now = time.monotonic()
        self.done = done
        self._mark(now)
        if text is not None:
            self.text = text
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=f"{self.text}  {self.left()}")
        elif now - self._last_line > SECONDS_BETWEEN_LINES and done != self.total:
            self._last_line = now
            total = f"/{self.total}" if self.total >= 0 else ""
            log.info("%s %d%s  %s  %s", self.title, done, total, self.text, self.left())

    def _mark(self, now: float) -> None:
        """Note how far the work is now and then, and forget what is no longer recent."""
        if now - self._marks[-1][0] >= RECENT / MARKS:
            self._marks.append((now, self.done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RECENT:
            self._marks.popleft()
