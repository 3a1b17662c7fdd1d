"""sweep.json: the command of a sweep, what its jobs are, how far each is, and what came out.

What a job's own directory says of it holds; the sweep adds what no job can say: which of them have not been
started, and how one ended that left nothing.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.app import left_run, lock
from ddpm.app.grammar import shown
from ddpm.app.sweeps import cluster
from ddpm.errors import UsageError
from ddpm.runtime.writing import write_whole

NAME = "sweep.json"
TABLE = "sweep.csv"
LAYOUT = 1
MOST_BYTES = 1 << 26
"""Of it: ten thousand jobs are below it."""

MOST_ROWS_BYTES = 1 << 28
"""Of a job's metrics.csv."""

MEASURED = "val/loss"
"""By which jobs are compared."""

ENDED = ("finished", "interrupted", "failed")
"""How a run says that it has ended."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: its place in the sweep, from 0.
        directory: absolute.
        overrides: its own and those that all jobs have, in Hydra's grammar, none of Hydra's own settings.
        exit_code: that the sweep saw; None where it saw none.
        queued: how it is called in a cluster's queue, or None.
        status: "not started", "queued", "running", "killed", or how it ended: "finished", "interrupted",
            "failed".
        why: it ended so, in words, or None.
        step: completed optimizer steps, or None.
        max_steps: that it is to take, or None.
        last, best: validation loss, or None.
        metrics: what it measured at its end, by name.
        seconds: that it took, all its starts together.
    """

    number: int
    directory: Path
    overrides: tuple[str, ...] = ()
    exit_code: int | None = None
    queued: str | None = None
    status: str = "not started"
    why: str | None = None
    step: int | None = None
    max_steps: int | None = None
    last: float | None = None
    best: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_done(self) -> bool:
        return self.status == "finished"


@dataclass(frozen=True)
class Sweep:
    """What sweep.json says.

    Attributes:
        directory: of the sweep, absolute.
        program: train, sample or evaluate.
        typed: words of the command, without -m, as typed.
        flags: that say which configuration is composed.
        cwd: where it was typed.
        started: when, in ISO 8601.
        jobs: in order.
    """

    directory: Path
    program: str
    typed: tuple[str, ...]
    flags: tuple[str, ...]
    cwd: str
    started: str
    jobs: tuple[Job, ...] = ()

    def write(self) -> None:
        """Write sweep.json and sweep.csv.

        Raises:
            WriteError: where they cannot be.
        """
        apart = differing(self.jobs)
        values = {
            "layout": LAYOUT,
            "program": self.program,
            "command": list(self.typed),
            "flags": list(self.flags),
            "working_directory": self.cwd,
            "started": self.started,
            "updated": now(),
            "jobs": [{**self._told(job), "differs": apart[job.number]} for job in self.jobs],
        }
        write_whole(self.directory / NAME, json.dumps(values, indent=2) + "\n")
        write_whole(self.directory / TABLE, self._csv(apart))

    def _told(self, job: Job) -> dict[str, Any]:
        return {**asdict(job), "directory": _inside(job.directory, self.directory)}

    def _csv(self, apart: Mapping[int, Mapping[str, str]]) -> str:
        keys = list(dict.fromkeys(key for own in apart.values() for key in own))
        measured = list(dict.fromkeys(name for job in self.jobs for name in job.metrics))
        columns = ["job", *keys, "status", "step", f"last {MEASURED}", f"best {MEASURED}", *measured]
        columns += ["seconds", "directory"]
        text = io.StringIO(newline="")
        rows = csv.DictWriter(text, columns, lineterminator="\n")
        rows.writeheader()
        for job in ranked(self.jobs):
            rows.writerow(
                {
                    **apart[job.number],
                    **job.metrics,
                    "job": job.number,
                    "status": job.status,
                    "step": job.step,
                    f"last {MEASURED}": job.last,
                    f"best {MEASURED}": job.best,
                    "seconds": round(job.seconds, 2),
                    "directory": _inside(job.directory, self.directory),
                }
            )
        return text.getvalue()

    def looked_at(self) -> "Sweep":
        """The same, with what the directories of its jobs say now."""
        return replace(self, jobs=tuple(map(look, self.jobs)))

    def with_job(self, number: int, **known: Any) -> "Sweep":
        """The same, with what is known of a job and what its directory says now; of one that a sweeper has
        only now chosen too.
        """
        jobs = {job.number: job for job in self.jobs}
        job = jobs.get(number) or Job(number, self.directory / str(number))
        jobs[number] = look(replace(job, **known))
        return replace(self, jobs=tuple(jobs[one] for one in sorted(jobs)))


def now() -> str:
    """In ISO 8601, with this machine's offset."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read(directory: Path) -> Sweep:
    """What a sweep's directory says of it.

    Raises:
        UsageError: where it is none, or one that this version does not know.
    """
    file = directory / NAME
    if not file.exists():
        raise UsageError(f"{directory}: is no sweep, it holds no {NAME}")
    values = bounded.json_values(file, MOST_BYTES)
    if values.get("layout") != LAYOUT:
        raise UsageError(
            f"{file}: is of layout {values.get('layout')!r}, and this version knows {LAYOUT}; use the "
            "version that wrote it"
        )
    try:
        return Sweep(
            directory,
            _text(values["program"]),
            _texts(values["command"]),
            _texts(values["flags"]),
            _text(values["working_directory"]),
            _text(values["started"]),
            tuple(_job(directory, job) for job in values["jobs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read, it is not as a sweep writes it ({error})") from error


def look(job: Job) -> Job:
    """A job as its directory shows it now, and a cluster's queue where it stands in one."""
    seen = _in_directory(job)
    if job.queued is None or job.exit_code is not None or seen.is_done or seen.status == "running":
        return seen
    try:
        state = cluster.state(job.queued)
    except cluster.SilentError:  # what it would say is not known
        return replace(seen, status="queued") if seen.status == "not started" else seen
    if state is not None:
        return replace(seen, status=state)
    if seen.status == "not started":
        return replace(seen, status="failed", why=f"{job.queued} has left the queue and nothing behind")
    return seen


def _in_directory(job: Job) -> Job:
    if not (job.directory / left_run.RECORD).exists():
        if job.exit_code is None:
            begun = "failed" if job.directory.exists() else "not started"
            return replace(job, status="running" if lock.is_held(job.directory) else begun)
        return replace(job, status="finished" if job.exit_code == 0 else "failed")
    try:
        record = left_run.read_record(job.directory)
    except UsageError as error:
        return replace(job, status="failed", why=str(error))
    status = record.get("status")
    if status not in ENDED:
        status = "running" if lock.is_held(job.directory) else "killed"
    seen = _validated(job.directory)
    metrics = record.get("metrics")
    return replace(
        job,
        status=status,
        why=record["why"] if isinstance(record.get("why"), str) else None,
        step=seen.step if seen.step is not None else _whole(record.get("step")),
        last=seen.last,
        best=seen.best,
        metrics={
            str(name): float(value)
            for name, value in (metrics if isinstance(metrics, dict) else {}).items()
            if isinstance(value, int | float) and math.isfinite(value)
        },
        seconds=_finite(record.get("wall_seconds")) or job.seconds,
    )


@dataclass(frozen=True)
class _Seen:
    step: int | None = None
    last: float | None = None
    best: float | None = None


def _validated(directory: Path) -> _Seen:
    """What metrics.csv says so far."""
    try:
        rows = list(csv.DictReader(io.StringIO(bounded.text(directory / "metrics.csv", MOST_ROWS_BYTES))))
    except (UsageError, csv.Error):
        return _Seen()
    steps = [row["step"] for row in rows if (row.get("step") or "").isdigit()]
    found = [value for row in rows if (value := _finite(row.get(MEASURED))) is not None]
    return _Seen(
        int(steps[-1]) if steps else None, found[-1] if found else None, min(found) if found else None
    )


def differing(jobs: Sequence[Job]) -> dict[int, dict[str, str]]:
    """What sets each job apart from the others: keys and values as they are typed, by number."""
    own = {job.number: dict(_key_and_value(text) for text in job.overrides) for job in jobs}
    keys = list(dict.fromkeys(key for values in own.values() for key in values))
    apart = [key for key in keys if len({values.get(key) for values in own.values()}) > 1]
    return {number: {key: values[key] for key in apart if key in values} for number, values in own.items()}


def ranked(jobs: Sequence[Job]) -> list[Job]:
    """The best first; those that have measured nothing last, in their order."""
    return sorted(jobs, key=lambda job: (job.best is None, job.best if job.best is not None else 0.0))


@cache
def _key_and_value(override: str) -> tuple[str, str]:
    key, _, value = shown([override]).partition("=")
    return key.lstrip("+~"), value


def _job(directory: Path, values: Mapping[str, Any]) -> Job:
    return look(
        Job(
            int(values["number"]),
            directory / _text(values["directory"]),
            _texts(values["overrides"]),
            exit_code=_whole(values.get("exit_code")),
            queued=values["queued"] if isinstance(values.get("queued"), str) else None,
            max_steps=_whole(values.get("max_steps")),
            seconds=_finite(values.get("seconds")) or 0.0,
        )
    )


def _inside(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    return tuple(map(_text, values))


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _finite(written: Any) -> float | None:
    try:
        value = float(written)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
