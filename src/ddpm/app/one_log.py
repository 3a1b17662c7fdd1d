"""One log of a run: what other ranks warn of is said by the leader, by rank, and once where many warn of it.

Errors each rank says itself, as it may be the last that it does.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

HELD = 2.0
"""Seconds in which the leader may say the same itself, and further ranks may warn of it."""

MOST_KEPT = 1000
"""Texts of one process that are kept: to be told, or to be known again."""

LONGEST = 2000
"""Characters of a text that is told."""

log = logging.getLogger(__name__)


class ToLeader(logging.Handler):
    """Of a rank that is not the leader: keeps its warnings until there is somebody to tell."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.addFilter(lambda record: record.levelno < logging.ERROR)
        self._kept: deque[str] = deque(maxlen=MOST_KEPT)
        self._tell: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._kept.append(self.format(record)[:LONGEST])
        except Exception:
            self.handleError(record)
        self._pass_on()

    def tell(self, to: Callable[[str], None]) -> None:
        """Hand on what is kept, and from now on what comes."""
        self._tell = to
        self._pass_on()

    def _pass_on(self) -> None:
        while self._tell is not None and self._kept:
            self._tell(self._kept.popleft())


class FromRanks(logging.Handler):
    """Of the leader: says what other ranks warn of, unless it has warned of the same."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: OrderedDict[str, None] = OrderedDict()
        self._held: OrderedDict[str, tuple[float, list[int]]] = OrderedDict()
        self._guard = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._know(self.format(record)[:LONGEST])
        except Exception:
            self.handleError(record)

    def hear(self, rank: int, text: str) -> None:
        """A rank has warned."""
        with self._guard:
            _, ranks = self._held.setdefault(text, (time.monotonic(), []))
            if rank not in ranks:
                ranks.append(rank)

    def say(self, *, all_of_it: bool = False) -> None:
        """Say what has been held for long enough."""
        until = time.monotonic() - (0.0 if all_of_it else HELD)
        with self._guard:
            due = {text: ranks for text, (at, ranks) in self._held.items() if at <= until}
            for text in due:
                del self._held[text]
        for text, ranks in due.items():
            if text not in self._said:
                self._know(text)
                log.warning("%s: %s", named(ranks), text)

    def _know(self, text: str) -> None:
        self._said[text] = None
        while len(self._said) > MOST_KEPT:
            self._said.popitem(last=False)


def named(ranks: list[int]) -> str:
    """Ranks in words."""
    shown = [str(rank) for rank in sorted(ranks)]
    if len(shown) > 4:
        shown = [*shown[:3], f"... {shown[-1]}"]
    return f"rank{'' if len(ranks) == 1 else 's'} {', '.join(shown)}"
