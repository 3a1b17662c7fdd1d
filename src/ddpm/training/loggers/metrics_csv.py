"""metrics.csv: every scalar of a run in one file that any program reads."""

import csv
import io
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import DummyExperiment, Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm import bounded
from ddpm.errors import UsageError
from ddpm.runtime.writing import reason, whole

log = logging.getLogger(__name__)

MOST_BYTES = 1 << 28
"""Of a file that is gone on with: a million rows are below it."""

MOST_NAMED = 5
"""Lines that a message names."""


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
        """Begin with the rows of another run up to `step`, so that the file tells the whole history. Columns
        that only later rows have a value for come again where they came.

        Lines that are not whole are left out, which is told; where this file takes the other's place, a copy
        stays as it was.
        """
        if earlier.stat().st_size > MOST_BYTES:
            raise UsageError(
                f"{earlier}: has more than {MOST_BYTES:,} bytes, too many to go on with; move it away, "
                "and the rows begin anew here"
            )
        columns, found, left_out = _whole_rows(bounded.contents(earlier, MOST_BYTES))
        if left_out:
            copied = ""
            if earlier == self.path:
                copy = earlier.with_name("metrics_damaged.csv")
                with suppress(OSError):
                    shutil.copyfile(earlier, copy)
                    copied = f"; {copy.name} keeps it as it was"
            more = f" and {len(left_out) - MOST_NAMED} more" if len(left_out) > MOST_NAMED else ""
            named = ", ".join(left_out[:MOST_NAMED]) + more
            log.warning("%s: what is not whole is left out: %s%s", earlier, named, copied)
        rows = [found[number] for number in sorted(found) if number <= step]
        self.columns = [name for name in columns if any(row[name] != "" for row in rows)] or ["step"]
        self._rows = [{name: row[name] for name in self.columns} for row in rows]
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


def rows_by_step(path: Path) -> dict[int, dict[str, Any]]:
    """What a metrics.csv says, text by name for each step; lines that are not whole are left out.

    Raises:
        UsageError: where there is no such file, or it is larger than one of a run.
    """
    return _whole_rows(bounded.contents(path, MOST_BYTES))[1]


def _whole_rows(contents: bytes) -> tuple[list[str], dict[int, dict[str, Any]], list[str]]:
    """What can be read of a file, whatever happened to it.

    Returns:
        The columns; the rows by step, of two of one step the values that came last; and what had to be left
        out, in words.
    """
    *lines, rest = contents.split(b"\n")  # a line that was not ended was not written to its end
    left_out = [f"line {len(lines) + 1} is torn"] if rest else []
    columns = _cells(lines[0]) if lines else None
    if columns is None or "step" not in columns or len(set(columns)) < len(columns):
        return ["step"], {}, ["all of it, for its header is torn"]
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = _cells(line)
        row: dict[str, Any] = dict(zip(columns, cells or (), strict=False))
        if cells is None or len(cells) != len(columns) or not row["step"].isascii():
            left_out.append(f"line {number} is torn")
        elif not row["step"].isdigit():
            left_out.append(f"line {number} has no step")
        else:
            row["step"] = int(row["step"])
            known = rows.setdefault(row["step"], row)
            known.update({name: value for name, value in row.items() if value != "" or name not in known})
    return columns, rows, left_out


def _cells(line: bytes) -> list[str] | None:
    """Of a line; None where it is none."""
    try:
        text = line.decode().rstrip("\r")
        return next(csv.reader([text], strict=True), None) if "\0" not in text else None
    except (UnicodeDecodeError, csv.Error):
        return None
