"""The table at the end of a sweep: what each job was and what came out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ddpm.app.left_run import read_record

WIDEST = 60
"""Characters of what sets a job apart."""


@dataclass
class Row:
    """A job.

    Attributes:
        job: what it is called.
        differs: the overrides that set it apart from the others.
        outcome: in words.
        directory: as it is shown.
        seconds: that it took.
        objective: what its `run.json` calls so.
    """

    job: str
    differs: str
    outcome: str = "not started"
    directory: str = ""
    seconds: float = 0.0
    objective: Any = None


def table(rows: Sequence[Row]) -> str:
    """A line a job, below a line of headings."""
    lines = [("job", "what differs", "outcome", "val/loss", "time", "directory")]
    for row in rows:
        elapsed = str(timedelta(seconds=round(row.seconds)))
        value = f"{row.objective:.5g}" if isinstance(row.objective, int | float) else "-"
        what = row.differs if len(row.differs) <= WIDEST else f"{row.differs[: WIDEST - 3]}..."
        lines.append((row.job, what, row.outcome, value, elapsed, row.directory or "-"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def left_behind(directory: Path, since: float, label: Callable[[Sequence[str]], str]) -> list[Row]:
    """The jobs of a sweep as their directories show them, whoever ran them.

    Args:
        directory: of the sweep, a job in each folder whose name is a number.
        since: when the sweep began, as `time.time` counts; what is older belongs to another.
        label: what sets a job with these overrides apart.
    """
    jobs = sorted(
        (path for path in directory.glob("*") if path.name.isdigit()), key=lambda path: int(path.name)
    )
    records = {path: _record(path) for path in jobs if path.stat().st_mtime >= since}
    here = Path.cwd()
    return [
        Row(
            path.name,
            label(record.get("overrides", ())) or "-",
            record.get("status", "failed before it began"),
            str(path.relative_to(here) if path.is_relative_to(here) else path),
            record.get("wall_seconds", 0.0),
            record.get("objective"),
        )
        for path, record in records.items()
    ]


def _record(directory: Path) -> dict[str, Any]:
    """The run's `run.json`; empty where there is none."""
    try:
        return read_record(directory)
    except (OSError, ValueError):
        return {}
