"""How far the jobs of a sweep are: kept in its record, and shown while several run at once."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.text import Text

from ddpm.app.grammar import without_hydra
from ddpm.app.sweeps import record
from ddpm.app.sweeps.table import table
from ddpm.runtime.progress import console, duration
from ddpm.runtime.writing import WriteError

log = logging.getLogger(__name__)

RECENT = 120.0
"""Seconds whose speed says how long a job still takes: jobs begin and end beside it."""

EVERY = 2.0
"""Seconds between two looks at the jobs on a terminal."""

BETWEEN_LINES = 60.0
"""Seconds between two lines where there is no terminal."""


class Progress:
    """Use as a context manager.

    Args:
        directory: of the sweep; None where nothing keeps a record.
        n_jobs: that run at once. One alone shows its own progress.
    """

    def __init__(self, directory: Path | None, n_jobs: int):
        self.directory = directory
        self.is_shown = directory is not None and n_jobs > 1
        self.sweep = record.read(directory) if directory is not None else None
        self._looked = self._said = self._began = time.monotonic()
        self._live: Live | None = None
        self._marks: dict[int, deque[tuple[float, int]]] = {}
        """When each running job was seen at another step than before, and at which."""
        self._running: set[int] = set()
        """Jobs that have been started here and not been seen to end: their directories may not say so yet."""
        self._stack = ExitStack()

    def __enter__(self) -> "Progress":
        if self.is_shown and console.is_terminal:
            self._live = self._stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def started(
        self,
        number: int,
        overrides: Sequence[str],
        result: Any,
        queued: str | None = None,
        before: int | None = None,
    ) -> None:
        """A job has been started, or queued under a name, when its run's record had this stamp."""
        if self.sweep is None:
            return
        self._marks.pop(number, None)
        if queued is None:
            self._running.add(number)
        hydra = result.hydra_cfg.hydra
        steps = (result.cfg.get("trainer") or {}).get("max_steps") if result.cfg is not None else None
        self._keep(
            number,
            overrides=without_hydra(overrides),
            directory=Path(hydra.runtime.output_dir),
            max_steps=steps if isinstance(steps, int) else None,
            exit_code=None,
            queued=queued,
            before=before,
        )

    def ended(self, number: int, code: int | None, seconds: float) -> None:
        """A job has ended; None where it was not run, having been finished before."""
        self._running.discard(number)
        if code is not None and self.sweep is not None:
            self._keep(number, exit_code=code, seconds=seconds)

    def shown(self) -> None:
        """Say now and then how far all are."""
        now = time.monotonic()
        if self.sweep is None or not self.is_shown:
            return
        if self._live is not None and now - self._looked > EVERY:
            self._looked = now
            jobs = self._seen(self.sweep.looked_at()).jobs
            left = {job.number: self._left(job, now) for job in jobs if job.status == "running"}
            lines = table(jobs, Path.cwd(), best_first=False, left=left, monitor=self.sweep.monitor)
            self._live.update(Text("\n".join([lines, *self._to_come()])), refresh=True)
        elif self._live is None and now - self._said > BETWEEN_LINES:
            self._said = now
            jobs = self._seen(self.sweep.looked_at()).jobs
            states = [job.status for job in jobs]
            counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
            log.info("after %s: %s", duration(now - self._began), ", ".join([*counts, *self._to_come()]))

    def _seen(self, sweep: record.Sweep) -> record.Sweep:
        """The same, with jobs running that this process has started."""
        jobs = (replace(job, status="running") if job.number in self._running else job for job in sweep.jobs)
        return replace(sweep, jobs=tuple(jobs))

    def _to_come(self) -> list[str]:
        """Of a search: how many jobs have not been chosen yet, in words; nothing where all are known."""
        assert self.sweep is not None
        unknown = self.sweep.total - len(self.sweep.jobs)
        return [f"{unknown} to be chosen"] if unknown else []

    def _left(self, job: record.Job, now: float) -> str:
        """The time that a job has left, by its speed of late; rows tell now and then at which step it is."""
        if job.step is None or not job.max_steps:
            return "-"
        marks = self._marks.setdefault(job.number, deque([(now, job.step)]))
        if job.step > marks[-1][1]:
            marks.append((now, job.step))
        while len(marks) > 2 and marks[1][0] <= now - RECENT:
            marks.popleft()
        (then, step), (at, last) = marks[0], marks[-1]
        return "-" if last <= step else duration((at - then) / (last - step) * (job.max_steps - last))

    def _keep(self, number: int, **known: Any) -> None:
        assert self.sweep is not None
        self.sweep = self._seen(self.sweep.with_job(number, **known))
        try:
            self.sweep.write()
        except WriteError as error:
            log.warning("%s", error)
