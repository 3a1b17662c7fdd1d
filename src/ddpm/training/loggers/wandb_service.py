"""W&B's own process (wandb-core), which is waited for so long and no longer."""

import atexit
import contextvars
import os
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Result = TypeVar("Result")

TO_FORGET = 10.0
"""Seconds that it has to end by itself where it has failed already."""

NAMED = "WANDB_SERVICE"
"""Of the environment: names the process to those that this program starts."""

KILLED = 5.0
"""Seconds for what waits for it to notice that it is gone."""


class SilentError(TimeoutError):
    """It has not answered in time, and is killed."""


def within(
    seconds: float,
    call: Callable[[], Result],
    *,
    each: float = 60.0,
    on_waiting: Callable[[float], None] | None = None,
) -> Result:
    """What a call of W&B's returns, which may wait for its process without a limit of its own.

    The call has a thread of its own; where it does not come back, the process is killed, and the thread left.

    Args:
        seconds: the limit; infinity waits for ever.
        call: of W&B's.
        each: so many seconds `on_waiting` is told how long it has been waited for.
        on_waiting: says so.

    Raises:
        SilentError: where it is not back in time.
        BaseException: what the call raises.
    """
    returned: list[Result] = []
    raised: list[BaseException] = []

    def work() -> None:
        try:
            returned.append(call())
        except BaseException as error:  # for the thread that waits
            raised.append(error)

    process = _process()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), name="W&B", daemon=True)
    thread.start()
    began = time.monotonic()
    while thread.is_alive() and (left := began + seconds - time.monotonic()) > 0:
        thread.join(min(left, each))
        if thread.is_alive() and on_waiting is not None:
            on_waiting(time.monotonic() - began)
    if thread.is_alive():
        _kill(process or _process())
        thread.join(KILLED)
        raise SilentError(f"its process has not answered within {seconds:g} s")
    if raised:
        raise raised[0]
    return returned[0]


def forget() -> None:
    """Have W&B start another process next time, and not miss a dead one when the program ends."""
    import wandb

    with suppress(Exception, SystemExit):  # with the exit code of the process
        within(TO_FORGET, wandb.teardown)
    os.environ.pop(NAMED, None)


def is_of_another(error: Exception) -> bool:
    """Whether W&B could not reach a process that the environment names, and that has ended."""
    return NAMED in os.environ and type(error).__name__ == "WandbServiceConnectionError"


def limit_the_exit(seconds: float) -> None:
    """Kill the process where it keeps the program from its end for longer; infinity waits for ever.

    To be called once W&B has begun: what is registered last is called first, and W&B waits when it is called.
    """
    _at_exit.seconds = seconds
    _at_exit.watch()
    atexit.unregister(_at_exit.begins)
    atexit.register(_at_exit.begins)


class _AtExit:
    """A thread that waits for the end of the program, as none can be started then."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.begins = threading.Event().set
        self._watched_in: int | None = None

    def watch(self) -> None:
        if self._watched_in == os.getpid():
            return
        self._watched_in = os.getpid()
        ends = threading.Event()
        self.begins = ends.set
        threading.Thread(target=self._watch, args=(ends,), name="W&B's end", daemon=True).start()

    def _watch(self, ends: threading.Event) -> None:
        ends.wait()
        if self.seconds < threading.TIMEOUT_MAX:
            time.sleep(self.seconds)
            _kill(_process())


_at_exit = _AtExit()


def _process() -> "subprocess.Popen[Any] | None":
    """The process, if this one has started it; W&B says it nowhere."""
    from wandb.sdk import wandb_setup

    setup: Any = wandb_setup._singleton
    if getattr(setup, "_pid", None) != os.getpid():
        return None
    started = getattr(getattr(setup, "_connection", None), "_proc", None)
    return getattr(started, "_process", None)


def _kill(process: "subprocess.Popen[Any] | None") -> None:
    if process is not None:
        with suppress(OSError):
            process.kill()
