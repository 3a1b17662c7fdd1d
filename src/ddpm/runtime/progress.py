"""How far work is and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

import logging
import os
import time
from collections import deque
from collections.abc import Sequence
from statistics import median
from types import TracebackType

from rich.cells import cell_len
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

SECONDS_BETWEEN_TEXTS = 0.25
"""The time left is worked out as often as the bar is drawn, and not at every step."""

BAR_WIDTH = (8, 40)
"""Cells of the bar: the fewest, and the most where there is room."""

RECENT = 20.0
"""Seconds of work whose speed says how long the rest takes: a machine that others use too changes its
speed.
"""

MARKS = 20
"""As many times within these seconds it is noted how far the work is."""

SEEN = 3
"""Times that a pause of one kind took last, whose median is what the next one is expected to take."""


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


class Pause:
    """What is done between steps now and then, and takes its own time: a validation, a grid of samples.

    What it takes is counted in steps: where the machine becomes slower, so do both.

    Args:
        name: what it is called.
        every_n_steps: steps from one to the next; None for one at the end alone.
        guess: of what it takes, in steps, until one has been seen.
        at_end: what another one takes when all steps are done, in steps; None where there is none.
    """

    def __init__(self, name: str, every_n_steps: int | None, guess: float = 0.0, at_end: float | None = None):
        self.name = name
        self.every_n_steps = every_n_steps
        self.guess = guess
        self.at_end = at_end
        self._seen: deque[float] = deque(maxlen=SEEN)

    @property
    def is_seen(self) -> bool:
        """Whether it has come already, so that what it takes is known."""
        return bool(self._seen)

    @property
    def cost(self) -> float:
        """What one takes, in steps."""
        return median(self._seen) if self._seen else self.guess

    def see(self, cost: float) -> None:
        """One took so many steps."""
        self._seen.append(cost)

    def times(self, done: int, until: int) -> int:
        """How often it comes from the step after `done` to `until`."""
        return 0 if self.every_n_steps is None else until // self.every_n_steps - done // self.every_n_steps

    def next(self, done: int, total: int) -> int | None:
        """The step that the next one comes after; None where there is none."""
        if self.every_n_steps is None:
            return None if self.at_end is None else total
        step = (done // self.every_n_steps + 1) * self.every_n_steps
        return step if total < 0 or step <= total else None


class Countdown:
    """Shows done/total, a text and the time left, on whatever the output is. Use as a context manager.

    The time left follows from the speed of the last seconds of work, in which pauses are not counted, and
    from the pauses that are still to come.

    Args:
        title: what is going on.
        total: steps; negative where there is no end in sight.
        done: steps that were done before.
        pauses: between the steps, in which the speed says nothing.
    """

    shows = True
    """Of all: whether a terminal is shown a bar; where none is, a line is logged now and then."""

    def __init__(self, title: str, total: int, done: int = 0, pauses: Sequence[Pause] = ()):
        self.title = title
        self.total = total
        self.done = done
        self.pauses = pauses
        self.text = ""
        self._bar: Progress | None = None
        self._marks: deque[tuple[float, int]] = deque()  # seconds of work, and steps
        self._measured = done
        self._paused = 0.0

    def __enter__(self) -> "Countdown":
        self._last_line = self._last_text = self._measured_at = time.monotonic()
        self._marks.append((self._last_line, self.done))
        if self.shows and console.is_terminal:
            self._bar_column = BarColumn()
            columns = (
                TextColumn("{task.description}"),
                self._bar_column,
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
        """From the recent speed and what is still to come; None where there is no speed yet, or no end."""
        each = self._seconds_a_step()
        if each is None or self.total < 0:
            return None
        steps: float = self.total - self.done
        for pause in self.pauses:
            # a pause after the step that was done last may be going on
            until = self.total if pause.at_end is None else self.total - 1  # the last one is another
            steps += pause.cost * max(0, pause.times(self._measured, until)) + (pause.at_end or 0.0)
        return each * steps

    def _seconds_a_step(self) -> float | None:
        (then, done_then), (now, done) = self._marks[0], (self._measured_at - self._paused, self._measured)
        return (now - then) / (done - done_then) if done > done_then else None

    def left(self) -> str:
        """The time left, in words; nothing where it is not known."""
        seconds = self.seconds_left()
        return "" if seconds is None else duration(seconds) + " left"

    def coming(self) -> str:
        """The step of the next pause of each kind, in words."""
        steps = ((pause, pause.next(self.done, self.total)) for pause in self.pauses)
        named = [f"{pause.name} {step:,}" for pause, step in steps if step is not None]
        return f"next {', '.join(named)}" if named else ""

    def begin_here(self, done: int) -> None:
        """`done` steps are done, and what there was before says nothing of the speed."""
        self.done = self._measured = done
        self._measured_at, self._paused = time.monotonic(), 0.0
        self._marks.clear()
        self._marks.append((self._measured_at, done))

    def advance(self, done: int, text: str | None = None) -> None:
        """`done` steps are done, and so are the pauses after them; `text` replaces what is said beside
        them.
        """
        self.measure(done)
        self.show(done, text)

    def measure(self, done: int) -> None:
        """`done` steps are done, and so are the pauses after them."""
        now = time.monotonic()
        self.done = done
        if done == self._measured:
            return
        came = [pause for pause in self.pauses if pause.times(self._measured, done)]
        each = self._seconds_a_step()
        if came and each:
            own = each * (done - self._measured)
            extra = max(0.0, now - self._measured_at - own)
            self._paused += extra
            _share(extra / each, came)
        self._measured, self._measured_at = done, now
        self._mark(now - self._paused)

    def show(self, done: int, text: str | None = None) -> None:
        """Show that `done` steps are done."""
        now = time.monotonic()
        self.done = done
        is_new = text is not None and text != self.text
        if text is not None:
            self.text = text
        if self._bar is not None:
            if is_new or now - self._last_text >= SECONDS_BETWEEN_TEXTS:
                self._last_text = now
                self._bar.update(self._task, completed=done, text=self._fitted())
            else:
                self._bar.update(self._task, completed=done)
        elif now - self._last_line > SECONDS_BETWEEN_LINES and done != self.total:
            self._last_line = now
            total = f"/{self.total}" if self.total >= 0 else ""
            log.info("%s %d%s  %s", self.title, done, total, "  ".join(self._words()))

    def _words(self) -> list[str]:
        return list(filter(None, (self.text, self.left(), self.coming())))

    def _fitted(self) -> str:
        """The words that the terminal has room for beside title, bar and steps: what comes last goes first.
        The bar takes what is left.
        """
        least, most = BAR_WIDTH
        total = str(self.total) if self.total >= 0 else "?"
        steps = max(len(str(self.done)), len(total)) + 1 + len(total)
        room = console.width - cell_len(self.title) - steps - 3  # a blank between two columns
        words = self._words()
        while words and cell_len("  ".join(words)) > room - least:
            words.pop()
        text = "  ".join(words)
        self._bar_column.bar_width = min(most, max(least, room - cell_len(text)))
        return text

    def _mark(self, work: float) -> None:
        """Note how far the work is now and then, and forget what is no longer recent."""
        if work - self._marks[-1][0] >= RECENT / MARKS:
            self._marks.append((work, self._measured))
        while len(self._marks) > 2 and self._marks[1][0] <= work - RECENT:
            self._marks.popleft()


def _share(steps: float, pauses: Sequence[Pause]) -> None:
    """Have pauses that came together each see what it took: one that was seen before as much as before, what
    is left the others by their guesses.
    """
    unseen = [pause for pause in pauses if not pause.is_seen]
    if unseen:
        known = [pause for pause in pauses if pause.is_seen]
        steps = max(0.0, steps - sum(pause.cost for pause in known))
    among = unseen or pauses
    costs = [pause.cost for pause in among]
    for pause, cost in zip(among, costs, strict=True):
        pause.see(steps * cost / sum(costs) if sum(costs) else steps / len(among))
