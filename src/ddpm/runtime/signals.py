"""Signals that ask a run to end, heard also while the main thread waits in a library."""

import atexit
import multiprocessing.util  # whose own end of the program then comes behind that of this module
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGHUP")
    if hasattr(signal, name)
)
"""What schedulers, terminals and people send to have a program end."""

ELASTIC_SECONDS = 5.0
"""Under torchrun, signals this soon after the first are taken for the same: the agent hands on to its workers
what a scheduler or a terminal has sent them already.
"""


class Signals:
    """Hears the signals that ask a process to end. A first one is kept in `received`; a second is impatience.

    Python runs a handler in the main thread and between two instructions of its own, so not while that thread
    waits for other ranks, for a rendezvous or for a compiler. A thread hears of them at once.

    Args:
        on_first: called in that thread with the first signal's number.
        on_second: likewise with that of each further one.
    """

    def __init__(
        self, on_first: Callable[[int], None] | None = None, on_second: Callable[[int], None] | None = None
    ):
        self.received = 0
        self._on_first = on_first
        self._on_second = on_second
        self._first_at = 0.0
        self._previous: dict[int, Any] = {}
        self._ends: tuple[socket.socket, socket.socket] | None = None
        self._previous_fd = -1

    def listen(self) -> None:
        """Begin to hear, also what has been held back for this moment. Signals that are ignored stay so:
        `nohup` and a shell's `&` ask for it. Outside the main thread, where no handler can be set, nothing is
        heard.
        """
        global _listening
        if threading.current_thread() is not threading.main_thread():
            return
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)  # a handler must never wait
        self._ends = ours, theirs
        self._previous_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for signum in ENDING:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                self._previous[signum] = signal.signal(signum, self._handle)
        threading.Thread(target=self._hear, args=(ours,), name="signals", daemon=True).start()
        atexit.register(_end_workers)
        _listening = self
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._previous)

    def close(self) -> None:
        """Hear no more; what was there before is there again."""
        global _listening
        if self._ends is None:
            return
        for signum, handler in self._previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._previous = {}
        signal.set_wakeup_fd(self._previous_fd)
        _, theirs = self._ends
        self._ends = None
        theirs.close()  # which ends the thread
        _listening = None

    def _handle(self, signum: int, frame: Any) -> None:
        """In the main thread, where it gets to it: the same step sees it, not the next."""
        self.received = self.received or signum

    def _hear(self, ours: socket.socket) -> None:
        with ours:
            while heard := ours.recv(16):
                for signum in heard:
                    if signum in self._previous:
                        self._act(signum)

    def _act(self, signum: int) -> None:
        self.received = self.received or signum
        now = time.monotonic()
        if not self._first_at:
            self._first_at = now
            if self._on_first is not None:
                self._on_first(signum)
        elif "TORCHELASTIC_RUN_ID" in os.environ and now - self._first_at < ELASTIC_SECONDS:
            return
        elif self._on_second is not None:
            self._on_second(signum)


_listening: Signals | None = None


def _in_forked_process() -> None:
    """A process that was forked, such as a worker that loads data, has its parent's handlers, and writes into
    its parent's socket what it receives itself. A signal for the whole group is for the parent to act on: the
    worker is needed until the checkpoint is written, and goes with its parent.
    """
    if _listening is None:
        return
    signal.set_wakeup_fd(-1)
    for signum in _listening._previous:
        signal.signal(signum, signal.SIG_IGN)
    if signal.SIGTERM in _listening._previous:
        # torch sets a handler of its own for it in workers, and reports those that it ends as lost
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _end_workers() -> None:
    """At the end of the program: such a worker is deaf to the signal by which Python would end it, and then
    wait for it for ever.
    """
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if left and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch reports there those that end
    for child in left:
        child.kill()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_process)
