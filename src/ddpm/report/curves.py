"""The curves of a run: what metrics.csv says of each metric, thinned to what a page can show.

The file may be a stranger's: it is read within stated bounds, and a line or a cell that says nothing is left
out.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ddpm import bounded
from ddpm.errors import UsageError

FILE = "metrics.csv"
MOST_BYTES = 1 << 28
"""Of it: a million rows are below it."""

MOST_METRICS = 300
"""Columns that are read."""

SECTIONS = ("train", "val", "samples", "diagnostics", "perf")
"""What metric names begin with, in the order of the page; all else is "other"."""

DIGITS = 6
"""Significant ones of a value: more than a screen can show."""


@dataclass(frozen=True)
class Curve:
    """Values of one metric.

    Attributes:
        steps: completed optimizer steps, ascending.
        values: at these steps; None where one was not finite, which leaves a gap.
        number: of values before thinning.
        last, lowest, highest: (step, value) of finite values; None where there is none.
    """

    steps: tuple[int, ...]
    values: tuple[float | None, ...]
    number: int = field(default=0)
    last: tuple[int, float] | None = None
    lowest: tuple[int, float] | None = None
    highest: tuple[int, float] | None = None

    @property
    def lost(self) -> int:
        """How many of the values that are shown are not finite."""
        return sum(value is None for value in self.values)


def section(metric: str) -> str:
    """Where a metric stands on the page."""
    first = metric.partition("/")[0]
    return first if first in SECTIONS else "other"


def curves(directory: Path, most_points: int) -> dict[str, Curve]:
    """Every metric of a run by name; nothing where it has measured nothing yet.

    Args:
        directory: of the run.
        most_points: of a curve.

    Raises:
        UsageError: where the file cannot be read.
    """
    if not (directory / FILE).exists():
        return {}
    return {
        name: _curve(found, most_points)
        for name, found in _columns(bounded.text(directory / FILE, MOST_BYTES)).items()
    }


def _columns(text: str) -> dict[str, dict[int, float]]:
    """Values by metric and step; of two at one step the later one."""
    rows = csv.reader(io.StringIO(text, newline=""))
    found: dict[str, dict[int, float]] = {}
    try:
        header = next(rows, [])
        if "step" not in header:
            return {}
        at = header.index("step")
        named = [(i, name) for i, name in enumerate(header) if name and i != at][:MOST_METRICS]
        for row in rows:
            if len(row) != len(header) or not (row[at].isascii() and row[at].isdigit()):
                continue  # it was not written to its end
            step = int(row[at][:18])
            for i, name in named:
                if row[i] and (value := _number(row[i])) is not None:
                    found.setdefault(name, {})[step] = value
    except csv.Error as error:
        raise UsageError(f"{FILE}: cannot be read, it is no csv ({error})") from error
    return found


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _curve(found: dict[int, float], most_points: int) -> Curve:
    steps = sorted(found)
    values = [found[step] for step in steps]
    finite = [(step, value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    kept = _thinned(values, most_points)
    return Curve(
        tuple(steps[i] for i in kept),
        tuple(rounded(values[i]) for i in kept),
        len(steps),
        finite[-1] if finite else None,
        min(finite, key=lambda point: point[1], default=None),
        max(finite, key=lambda point: point[1], default=None),
    )


def _thinned(values: Sequence[float], most: int) -> list[int]:
    """Indices to keep: the first, the last, and of each of equally long parts the lowest, the highest and one
    that is not finite, so that no spike is lost.
    """
    n = len(values)
    if n <= most:
        return list(range(n))
    parts = max(1, (most - 2) // 3)
    kept = {0, n - 1}
    for part in range(parts):
        inside = range(part * n // parts, (part + 1) * n // parts)
        finite = [i for i in inside if math.isfinite(values[i])]
        if finite:
            kept |= {min(finite, key=values.__getitem__), max(finite, key=values.__getitem__)}
        kept.update(
            [next(i for i in inside if not math.isfinite(values[i]))] if len(finite) < len(inside) else ()
        )
    return sorted(kept)


def rounded(value: float) -> float | None:
    """As a page shows it; None where it is not finite, which JSON does not know."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
