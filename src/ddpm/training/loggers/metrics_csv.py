"""metrics.csv: every scalar of a run in one file that any program reads."""

import csv
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm.runtime.writing import reason, whole

log = logging.getLogger(__name__)


class MetricsCSV(Logger):
    """metrics.csv: a row for each step at which anything was logged, complete on disk at any time.

    Rows ascend. A value that comes late, for an earlier step, joins the row of that step. What the disk
    refuses is told, waits in memory, and is written with the next row that is not refused.

    Args:
        path: of the file; made when the first row is written.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.columns = ["step"]
        self._rows: list[dict[str, Any]] = []
        """The last one, and before it those that the disk has refused."""
        self._rows_start = self._end = 0
        """Where in the file the first of them belongs, what is before it being whole; and where it ends."""
        self._refused = False
        """Whether the file is behind `_rows`."""
        self._begun = False
        """Whether the file is there, with all columns."""

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
        self._rows = [{**row, "step": int(row["step"])} for row in rows]
        try:
            self._rewrite(self._rows)
        except OSError as error:
            self._wait(error)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write values at a step; None is the step of the last row."""
        last = self._rows[-1]["step"] if self._rows else 0
        step = last if step is None else step
        values = {
            name: value.item() if isinstance(value, Tensor) else value for name, value in metrics.items()
        }
        self._adds_columns(values)
        try:
            if step < last:
                self._complete(step, values)
            elif step == last and self._rows:
                self._rows[-1].update(values)
            elif self._refused:
                self._rows.append({"step": step, **values})
            else:
                self._rows_start = self._end
                self._rows = [{"step": step, **values}]
            self._write()
        except OSError as error:
            self._wait(error)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Try once more to write what was refused."""
        if self._refused and self._rows:
            self.log_metrics({})

    def _wait(self, error: OSError) -> None:
        self._refused = True
        log.warning(
            "%s: cannot be written (%s); %d rows wait in memory for room",
            self.path, reason(error), len(self._rows),
        )  # fmt: skip

    def _complete(self, step: int, values: dict[str, Any]) -> None:
        """Add values to the row of an earlier step, which is made where there is none."""
        rows = {int(row["step"]): row for row in [*self._earlier_rows(), *self._rows]}
        rows.setdefault(step, {"step": step}).update(values)
        self._rows = [rows[earlier] for earlier in sorted(rows)]
        self._rows_start, self._begun = 0, False

    def _write(self) -> None:
        """Bring the file up to date: by its end where that is enough, else whole."""
        if not (self._begun and self.path.exists()):
            self._rewrite([*self._earlier_rows(), *self._rows])
            return
        lines = self._lines(self._rows).encode()
        with self.path.open("r+b", buffering=0) as file:
            file.seek(self._rows_start)
            written = 0
            try:
                while written < len(lines):
                    written += file.write(lines[written:])
            finally:
                file.truncate(self._rows_start + (written if written == len(lines) else 0))
        self._end = self._rows_start + written
        self._refused = False

    def _adds_columns(self, values: Mapping[str, Any]) -> None:
        new = [name for name in values if name not in self.columns]
        self.columns += new
        self._begun &= not new

    def _earlier_rows(self) -> list[dict[str, Any]]:
        """All rows that are in the file only."""
        if not self._rows_start or not self.path.exists():
            return []
        with self.path.open("rb") as file:
            written = io.StringIO(file.read(self._rows_start).decode(), newline="")
        return list(csv.DictReader(written))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        head = self._lines([dict(zip(self.columns, self.columns, strict=True))]) + self._lines(rows[:-1])
        contents = (head + self._lines(rows[-1:])).encode()
        with whole(self.path) as temporary:
            temporary.write_bytes(contents)
        self._rows, self._rows_start, self._end = rows[-1:], len(head.encode()), len(contents)
        self._begun, self._refused = True, False

    def _lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()
