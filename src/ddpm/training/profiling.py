"""What a Trainer profiles a run with, and where the report goes."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from lightning.pytorch.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    Profiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from lightning.pytorch.utilities import rank_zero_only

from ddpm.runtime.writing import write

log = logging.getLogger(__name__)

NOTHING = nullcontext()


class Unprofiled(PassThroughProfiler):
    """Profiles nothing, as Lightning's own that does so, which takes longer to do it, eighty times a step."""

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]  # theirs is a generator
        return NOTHING


class _Reporting(Profiler):
    """Gives its report to the log and to a file; Lightning's own give it to one of them, by a name that
    depends on the stage.
    """

    def describe(self) -> None:
        if summary := self.summary():
            rank = getattr(rank_zero_only, "rank", 0)
            if rank == 0:
                log.info("%s", summary)
            path = Path(self.dirpath or ".") / ("profile.txt" if rank == 0 else f"profile_rank_{rank}.txt")
            write(path, summary + "\n")
        self.teardown(stage=self._stage)


class _Simple(_Reporting, SimpleProfiler):
    """How long each of Lightning's actions took."""


class _Advanced(_Reporting, AdvancedProfiler):
    """The functions in which each of them spent its time."""


class _PyTorch(_Reporting, PyTorchProfiler):
    """Operators of a few steps, on CPU and GPU, and a trace of them for chrome://tracing."""


PROFILERS: dict[str, Callable[..., Profiler]] = {
    "simple": _Simple,
    "advanced": _Advanced,
    "pytorch": _PyTorch,
}


def profiler(name: str | None, directory: Path) -> Profiler:
    """The profiler that `trainer.profiler` names, which reports in the log and in `profile*.txt`.

    Args:
        name: simple, advanced or pytorch, as Lightning has them; None for none.
        directory: of the run.

    Raises:
        ValueError: for another name.
    """
    if name is None:
        return Unprofiled()
    if name not in PROFILERS:
        raise ValueError(f"trainer.profiler={name} must be {', '.join(PROFILERS)} or null")
    return PROFILERS[name](dirpath=str(directory))
