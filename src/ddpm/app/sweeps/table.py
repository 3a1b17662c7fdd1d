"""The jobs of a sweep as lines of text: what differs, how far each is, and what came out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ddpm.app.measuring.figures import shown
from ddpm.app.next_commands import readable
from ddpm.app.sweeps.record import MEASURED, Job, beside_the_loss, differing, figures_of, ranked
from ddpm.runtime.progress import duration

WIDEST = 40
"""Characters of a cell."""


def table(
    jobs: Sequence[Job],
    cwd: Path,
    *,
    best_first: bool = True,
    left: Mapping[int, str] | None = None,
    monitor: str = MEASURED,
) -> str:
    """A line a job, below a line of headings.

    Args:
        jobs: of the sweep.
        cwd: from where directories are shown.
        best_first: by the best validation loss, or the first figure; else in the order of the jobs.
        monitor: another metric that is shown beside it.
        left: the time that jobs have left, by number; None where none of them runs.
    """
    apart = differing(jobs)
    keys = list(dict.fromkeys(key for own in apart.values() for key in own))
    beside = [name for name in beside_the_loss(jobs) if name != monitor]
    figures = figures_of(jobs)
    headings = ["job", *_short(keys), "status", "step", MEASURED, "best", *beside]
    headings += [*figures, "nfe", "s/image", "time", "directory"]
    if monitor != MEASURED:
        headings.insert(headings.index("status"), monitor)
    if left is not None:
        headings.insert(-1, "left")
    lines = [headings]
    for job in ranked(jobs) if best_first else jobs:
        steps = "-" if job.step is None else f"{job.step}" + (f"/{job.max_steps}" if job.max_steps else "")
        lines.append(
            [
                str(job.number),
                *(_cut(apart[job.number].get(key, "-")) for key in keys),
                *([_value(job.metrics.get(monitor))] if monitor != MEASURED else []),
                job.status,
                steps,
                _value(job.last),
                _value(job.best),
                *(_value(job.metrics.get(name)) for name in beside),
                *(shown(job.figures[name]) if name in job.figures else "-" for name in figures),
                *_cost(job),
                duration(job.seconds) if job.seconds else "-",
                *([left.get(job.number, "-")] if left is not None else []),
                readable(job.directory, cwd),
            ]
        )
    return aligned(_without_empty(lines))


def _cost(job: Job) -> list[str]:
    """Network evaluations and seconds of an image that it has drawn."""
    drawn = next((figure for figure in job.figures.values() if figure.nfe is not None), None)
    return ["-", "-"] if drawn is None else [str(drawn.nfe), _value(drawn.seconds_per_image)]


def _without_empty(lines: Sequence[Sequence[str]]) -> list[list[str]]:
    """Without columns in which nobody has anything: jobs that sample have no loss."""
    told = [i for i, column in enumerate(zip(*lines, strict=True)) if set(column[1:]) != {"-"}]
    return [[line[i] for i in told] for line in lines]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _short(keys: Sequence[str]) -> list[str]:
    """Headings: the last part of a dotted key where no other ends so."""
    last = [key.rpartition(".")[2] for key in keys]
    return [end if last.count(end) == 1 else key for key, end in zip(keys, last, strict=True)]


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"
