"""sweep.json: the command of a sweep, what its jobs are, how far each is, and what came out.

What a job's own directory says of it holds; the sweep adds what no job can say: which of them have not been
started, and how one ended that left nothing.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.app import left_run, lock, run_directory
from ddpm.app.grammar import shown
from ddpm.app.measuring import figures
from ddpm.app.measuring.figures import Figure
from ddpm.app.sweeps import cluster
from ddpm.errors import UsageError
from ddpm.runtime.writing import readable_json, write_whole

NAME = "sweep.json"
TABLE = "sweep.csv"
LAYOUT = 1
MOST_BYTES = 1 << 26
"""Of it: ten thousand jobs are below it."""

MOST_ROWS_BYTES = 1 << 28
"""Of a job's metrics.csv."""

MEASURED = "val/loss"
"""By which jobs are compared."""

BITS = "val/bits_per_dim"
"""Likewise, before it, where it was measured."""

ENDED = ("finished", "pruned", "interrupted", "failed")
"""How a run says that it has ended."""

ASKED_TO_END = tuple(128 + signum for signum in (1, 2, 15))
"""Exit codes of a run that a signal has ended before there was anything to save: SIGHUP, SIGINT, SIGTERM."""


@dataclass(frozen=True)
class Job:
    """A job of a sweep.

    Attributes:
        number: its place in the sweep, from 0.
        directory: absolute.
        overrides: its own and those that all jobs have, in Hydra's grammar, none of Hydra's own settings.
        exit_code: that the sweep saw; None where it saw none.
        queued: how it is called in a cluster's queue, or None.
        before: the stamp of its run's record when it was queued, see `stamp`; None where it was not.
        status: "not started", "queued", "running", "killed", or how it ended: "finished", "pruned" by a
            search, "interrupted", "failed".
        why: it ended so, in words, or None.
        step: completed optimizer steps, or None.
        max_steps: that it is to take, or None.
        last, best: validation loss, or None.
        metrics: what it measured at its end, by name.
        figures: what evaluate.py has measured, by name.
        seconds: that it took, all its starts together.
    """

    number: int
    directory: Path
    overrides: tuple[str, ...] = ()
    exit_code: int | None = None
    queued: str | None = None
    before: int | None = None
    status: str = "not started"
    why: str | None = None
    step: int | None = None
    max_steps: int | None = None
    last: float | None = None
    best: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def has_ended(self) -> bool:
        """Whether the sweep saw it end, and not because it was asked to."""
        return self.exit_code is not None and self.exit_code not in ASKED_TO_END

    @property
    def is_done(self) -> bool:
        return self.status in ("finished", "pruned")


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
        jobs: in order; of a search those that have been chosen.
        search: what is searched, and by what it is compared; None where the jobs were known beforehand.
    """

    directory: Path
    program: str
    typed: tuple[str, ...]
    flags: tuple[str, ...]
    cwd: str
    started: str
    jobs: tuple[Job, ...] = ()
    search: Mapping[str, Any] | None = None

    @property
    def total(self) -> int:
        """How many jobs it has in the end."""
        trials = (self.search or {}).get("n_trials")
        return max(len(self.jobs), trials if isinstance(trials, int) else 0)

    @property
    def monitor(self) -> str:
        """The metric by which its jobs are compared."""
        return MEASURED if self.search is None else str(self.search["monitor"])

    @property
    def ranked(self) -> list[Job]:
        """Its jobs, the best first: by the best validation loss, of a search by what each has come to."""
        if self.search is None:
            return ranked(self.jobs)
        monitor, sign = self.monitor, -1.0 if self.search["direction"] == "maximize" else 1.0
        value = {
            job.number: job.metrics.get(monitor, job.last if monitor == MEASURED else None)
            for job in self.jobs
        }

        def place(job: Job) -> tuple[bool, bool, float]:
            own = value[job.number]
            return job.status != "finished", own is None, 0.0 if own is None else sign * own

        return sorted(self.jobs, key=place)

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
            **({"search": dict(self.search)} if self.search is not None else {}),
            "updated": now(),
            "jobs": [{**self._told(job), "differs": apart[job.number]} for job in self.jobs],
        }
        write_whole(self.directory / NAME, readable_json(values))
        write_whole(self.directory / TABLE, self._csv(apart))

    def _told(self, job: Job) -> dict[str, Any]:
        return {**asdict(job), "directory": _inside(job.directory, self.directory)}

    def _csv(self, apart: Mapping[int, Mapping[str, str]]) -> str:
        keys = list(dict.fromkeys(key for own in apart.values() for key in own))
        measured = list(dict.fromkeys(name for job in self.jobs for name in job.metrics))
        columns = ["job", *keys, "status", "step", f"last {MEASURED}", f"best {MEASURED}", *measured]
        figures = [name for job in self.jobs for own in job.figures.items() for name in _cells(*own)]
        columns += [*dict.fromkeys(figures), "seconds", "directory"]
        text = io.StringIO(newline="")
        rows = csv.DictWriter(text, columns, lineterminator="\n")
        rows.writeheader()
        for job in self.ranked:
            rows.writerow(
                {
                    **apart[job.number],
                    **job.metrics,
                    **{key: cell for own in job.figures.items() for key, cell in _cells(*own).items()},
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
            _search(values.get("search")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file}: cannot be read, it is not as a sweep writes it ({error})") from error


def look(job: Job) -> Job:
    """A job as its directory shows it now, and a cluster's queue where it stands in one."""
    is_old = job.before not in (None, 0) and stamp(job.directory) == job.before  # it was queued to go on
    seen = replace(_in_directory(job), status="not started", why=None) if is_old else _in_directory(job)
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
    job = replace(job, figures=figures.left_in(job.directory))
    if not (job.directory / left_run.RECORD).exists():
        if job.exit_code is None and has_results(job.directory):
            return replace(job, status="finished")
        if job.exit_code is None:
            begun = "failed" if job.directory.exists() else "not started"
            return replace(job, status="running" if lock.is_held(job.directory) else begun)
        ended = "interrupted" if job.exit_code in ASKED_TO_END else "failed"
        return replace(job, status="finished" if job.exit_code == 0 else ended)
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


def stamp(directory: Path) -> int:
    """Changes when a run's record does; 0 where there is none."""
    try:
        return (directory / left_run.RECORD).stat().st_mtime_ns
    except OSError:
        return 0


def has_results(directory: Path) -> bool:
    """Whether sample.py or evaluate.py is through there."""
    return any((directory / name).exists() for name in run_directory.RESULTS)


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
    """The best first; those that have measured nothing last, in their order.

    By bits per dimension where a job has measured them: losses of several weightings are not of one kind. Of
    evaluate.py by the first of its figures.
    """
    by_bits = any(BITS in job.metrics for job in jobs)
    measured = next(iter(figures_of(jobs)), None)

    def value(job: Job) -> float | None:
        if measured is not None:
            figure = job.figures.get(measured)
            return None if figure is None else figure.rank
        return job.metrics.get(BITS) if by_bits else job.best

    return sorted(jobs, key=lambda job: (value(job) is None, value(job) or 0.0))


def beside_the_loss(jobs: Sequence[Job]) -> list[str]:
    """What jobs have measured at their end of images that were held out or drawn, beside the loss."""
    measured = dict.fromkeys(name for job in jobs for name in job.metrics)
    return [
        name
        for name in measured
        if name.startswith(("val/", "samples/")) and not name.startswith(figures.COLOURS) and name != MEASURED
    ]


def figures_of(jobs: Sequence[Job]) -> list[str]:
    """The names of what evaluate.py has measured in some job."""
    return list(dict.fromkeys(name for job in jobs for name in job.figures))


def _cells(name: str, figure: Figure) -> dict[str, float | int | None]:
    """A figure in a row of the table, by column."""
    low, high = figure.interval or (None, None)
    cells = {name: figure.value, f"{name} low": low, f"{name} high": high}
    if figure.nfe is None:
        return cells
    return {**cells, "nfe": figure.nfe, "seconds_per_image": figure.seconds_per_image}


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
            before=_whole(values.get("before")),
            max_steps=_whole(values.get("max_steps")),
            seconds=_finite(values.get("seconds")) or 0.0,
        )
    )


def _search(values: Any) -> Mapping[str, Any] | None:
    if values is None:
        return None
    _text(values["monitor"]), _text(values["direction"])
    return dict(values)


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
