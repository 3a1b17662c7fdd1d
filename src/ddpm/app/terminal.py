"""What the program says, on the terminal and in the run's log file."""

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from ddpm.app import streams
from ddpm.app.log_file import LogFile
from ddpm.app.one_log import FromRanks, ToLeader
from ddpm.runtime.progress import Countdown, console
from ddpm.runtime.writing import reason

to_leader, from_ranks = ToLeader(), FromRanks()
"""What a rank that is not the leader warns of, and who says it."""


class _ToConsole(logging.Handler):
    """Prints lines above a running progress bar, never wrapped, warnings marked."""

    def emit(self, record: logging.LogRecord) -> None:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        console.print(f"{mark}{self.format(record)}", markup=False, highlight=False, soft_wrap=True)


TALKATIVE = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "httpx",
    "fsspec",
    "matplotlib",
    "fontTools",
)
"""Libraries of which warnings alone are said, unless more is asked for."""


def set_up(log_file: Path | None, *, leader: bool, rank: int | None = None, verbose: str = "normal") -> None:
    """Send everything that is logged to the terminal, and to a file if one is given.

    Args:
        log_file: `train.log` of a run.
        leader: whether this process speaks; of several that do the same work only one does. What another
            warns of, the leader says; errors it says itself.
        rank: of another, as far as it is known.
        verbose: what the terminal says: "quiet", of what is no result warnings and errors alone, and no
            bars; "normal"; "verbose", also each row of a training, and what the libraries tell. The file has
            what is said normally.
    """
    streams.make_unfailing()
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
        if isinstance(handler, LogFile):
            handler.close()
    root.setLevel(logging.INFO)
    who = "" if leader or rank is None else f"rank {rank}: "
    to_console = _ToConsole()
    to_console.setFormatter(logging.Formatter(f"{who}%(message)s"))
    said = {"quiet": logging.WARNING, "verbose": logging.DEBUG}.get(verbose, logging.INFO)
    to_console.setLevel(said if leader else logging.ERROR)
    logging.getLogger("ddpm").setLevel(logging.DEBUG if verbose == "verbose" else logging.NOTSET)
    Countdown.shows = verbose != "quiet"
    root.addHandler(to_console)
    root.addHandler(from_ranks if leader else to_leader)
    if log_file is not None:
        # the leader makes the directory, and tells of a full disk for all
        to_file = LogFile(log_file, tell=_warning_to(to_console) if leader else lambda _: None)
        to_file.setLevel(logging.INFO if leader else logging.ERROR)
        to_file.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(message)s"))
        root.addHandler(to_file)
        streams.tell_when_closed(_warning_to(to_file))
    threading.excepthook = _told_in_a_line
    logging.captureWarnings(True)
    warnings.formatwarning = lambda message, *args, **kwargs: str(message)
    for talkative in TALKATIVE:
        logger = logging.getLogger(talkative)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.INFO if verbose == "verbose" else logging.WARNING)
    for tells in ("lightning.pytorch.callbacks", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(tells).setLevel(logging.INFO)
    of_rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if verbose == "verbose":
        of_rank_zero.removeFilter(_is_asked_for)
    else:
        of_rank_zero.addFilter(_is_asked_for)


def _told_in_a_line(died: threading.ExceptHookArgs) -> None:
    """What becomes of a thread, of TensorBoard's or of anybody's, whose disk or server is away."""
    if isinstance(died.exc_value, OSError):
        name = "a thread" if died.thread is None else died.thread.name
        logging.getLogger(__name__).warning("%s has ended: %s", name, reason(died.exc_value))
    else:
        threading.__excepthook__(died)


def _is_asked_for(record: logging.LogRecord) -> bool:
    """Of what Lightning tells by the way, only what its callbacks do, which somebody has chosen."""
    return record.levelno > logging.INFO or "callbacks" in Path(record.pathname).parts


def _warning_to(handler: logging.Handler) -> Callable[[str], None]:
    """Gives a sentence to one handler alone: where the other one is what is told of."""

    def tell(sentence: str) -> None:
        handler.handle(logging.LogRecord("ddpm", logging.WARNING, "", 0, sentence, None, None))

    return tell


def say(text: str) -> None:
    """The result of a command: on standard output, and in the log file."""
    if sys.stderr is not None:  # a window's program has none
        sys.stderr.flush()
    print(text, flush=True)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            handler.handle(logging.LogRecord("ddpm", logging.INFO, "", 0, text, None, None))
