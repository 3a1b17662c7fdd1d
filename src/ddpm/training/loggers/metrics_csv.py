"""metrics.csv: every scalar of a run in one file that any program reads."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor


class MetricsCSV(Logger):
    """metrics.csv: a row for each step at which anything was logged, complete on disk at any time.

    Rows ascend. A value that comes late, for an earlier step, joins the row of that step.

    Args:
        path: of the file; made when the first row is written.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.columns = ["step"]
        self._row: dict[str, Any] = {}
        self._row_start = 0
        self._begun = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def save_dir(self) -> str:
        return str(self.path.parent)

    @property
    def experiment(self) -> DummyExperiment:
        """Takes any call and does nothing: what is meant for another logger's, where this one is alone."""
        return DummyExperiment()

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has a file of its own."""

    @rank_zero_only
    def continue_from(self, earlier: Path, step: int) -> None:
        """Begin with the rows of another run up to `step`, so that the file tells the whole history."""
        with earlier.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.columns = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write values at a step; None is the step of the last row."""
        last = self._row.get("step", 0)
        step = last if step is None else step
        values = {
            name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()
        }
        if step < last:
            self._complete(step, values)
            return
        if step > last or not self._row:
            self._row = {"step": step}
            self._row_start = self.path.stat().st_size if self._begun else 0
        self._row.update(values)
        if self._adds_columns(values) or not self._begun:
            self._rewrite([*self._earlier_rows(), self._row])
            return
        with self.path.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self._row_start)
            file.write(self._lines([self._row]))
            file.truncate()

    def _complete(self, step: int, values: dict[str, Any]) -> None:
        """Add values to the row of an earlier step, which is made where there is none."""
        rows = {int(row["step"]): row for row in self._earlier_rows()}
        rows.setdefault(step, {"step": step}).update(values)
        self._adds_columns(values)
        self._rewrite([*(rows[earlier] for earlier in sorted(rows)), self._row])

    def _adds_columns(self, values: Mapping[str, Any]) -> bool:
        new = [name for name in values if name not in self.columns]
        self.columns += new
        return bool(new)

    def _earlier_rows(self) -> list[dict[str, Any]]:
        """All rows on disk but the last, which is kept here."""
        if not self._begun:
            return []
        with self.path.open("rb") as file:
            written = io.StringIO(file.read(self._row_start).decode(), newline="")
        return list(csv.DictReader(written))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        head = self._lines([dict(zip(self.columns, self.columns, strict=True))]) + self._lines(rows[:-1])
        temporary = self.path.with_name(self.path.name + ".part")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            file.write(head + self._lines(rows[-1:]))
        os.replace(temporary, self.path)
        self._row = {**rows[-1], "step": int(rows[-1]["step"])} if rows else {}
        self._row_start = len(head.encode())
        self._begun = True

    def _lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()
