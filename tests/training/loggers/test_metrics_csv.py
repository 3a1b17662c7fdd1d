"""metrics.csv is complete at any time, a row a step."""

import csv
import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddpm.errors import UsageError
from ddpm.training.loggers import MetricsCSV
from ddpm.training.loggers.metrics_csv import MOST_BYTES


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_row_a_step_and_new_columns_as_they_come(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    logger.log_metrics({"train/loss": 1.0}, step=1)
    assert rows(logger.path) == [{"step": "1", "train/loss": "1.0"}]
    logger.log_metrics({"train/loss": 0.5}, step=2)
    logger.log_metrics({"val/loss": 0.7}, step=2)
    logger.log_metrics({"train/loss": 0.25}, step=3)
    assert rows(logger.path) == [
        {"step": "1", "train/loss": "1.0", "val/loss": ""},
        {"step": "2", "train/loss": "0.5", "val/loss": "0.7"},
        {"step": "3", "train/loss": "0.25", "val/loss": ""},
    ]
    logger.log_metrics({"val/loss": 0.123456789}, step=3)
    logger.log_metrics({"val/loss": 0.1}, step=3)  # same columns, same step: the row is completed in place
    logger.log_metrics({"train/loss": 0.2}, step=4)
    assert [row["val/loss"] for row in rows(logger.path)] == ["", "0.7", "0.1", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_continued_run_tells_the_whole_history(tmp_path: Path):
    first = MetricsCSV(tmp_path / "first.csv")
    for step in (5, 10, 15):
        first.log_metrics({"train/loss": step / 100}, step=step)
    second = MetricsCSV(tmp_path / "second.csv")
    second.continue_from(first.path, step=10)
    second.log_metrics({"train/loss": 0.5, "val/loss": 0.25}, step=15)
    assert [(row["step"], row["train/loss"]) for row in rows(second.path)] == [
        ("5", "0.05"),
        ("10", "0.1"),
        ("15", "0.5"),
    ]
    assert len(rows(first.path)) == 3
    first.continue_from(
        first.path, step=10
    )  # in the same directory the rows that will come again are dropped
    assert [row["step"] for row in rows(first.path)] == ["5", "10"]


def history(path: Path, steps: range = range(1, 8)) -> MetricsCSV:
    """Rows of a run; from step 5 with a value more."""
    logger = MetricsCSV(path)
    for step in steps:
        logger.log_metrics({"train/loss": 1 / step}, step=step)
        if step >= 5:
            logger.log_metrics({"val/loss": 2 / step}, step=step)
    return logger


@pytest.mark.parametrize("step", range(8))
def test_a_run_that_goes_on_from_any_step_leaves_the_bytes_of_one_that_went_through(
    tmp_path: Path, step: int
):
    """Also the order of the columns, of which the late one comes first where it stays."""

    def late(logger: MetricsCSV) -> None:
        logger.log_metrics({"between": 0.5, "val/loss": 1.0}, step=9)

    whole, killed = tmp_path / "whole.csv", tmp_path / "metrics.csv"
    late(history(whole))
    history(killed)
    again = MetricsCSV(killed)
    again.continue_from(killed, step)
    for number in range(step, 8):  # what belongs to the step of the checkpoint is written again
        if number:
            again.log_metrics({"train/loss": 1 / number}, step=number)
        if number >= 5:
            again.log_metrics({"val/loss": 2 / number}, step=number)
    late(again)
    assert killed.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.csv", "whole.csv"]


HEADER, ROWS = b"step,train/loss,val/loss\n", b"3,0.5,\n6,0.25,0.75\n"


@pytest.mark.parametrize(
    ("contents", "steps", "said"),
    [
        (
            HEADER + ROWS + b"9,0.1",
            [3, 6],
            "what is not whole is left out: line 4 is torn; metrics_damaged.csv keeps it",
        ),
        (HEADER + ROWS + b"9,0.125,0.5", [3, 6], "line 4 is torn"),  # perhaps of 0.567
        (HEADER + ROWS + b"9,0.1\n", [3, 6], "line 4 is torn"),
        (HEADER + ROWS + bytes(100), [3, 6], "line 4 is torn"),
        (HEADER + b"3,0.5,\n" + bytes(30) + b"\n6,0.25,0.75\n", [3, 6], "line 3 is torn"),
        (HEADER + b"3,0.5,\n4,\xff,1\n6,0.25,0.75\n", [3, 6], "line 3 is torn"),
        (HEADER + b"hello,1,2\n" + ROWS, [3, 6], "line 2 has no step"),
        (HEADER + ROWS[:7] + HEADER + ROWS[7:], [3, 6], "line 3 has no step"),
        (HEADER + b"6,0.5,0.75\n3,0.5,\n6,0.25,\n", [3, 6], None),
        (HEADER + ROWS, [3, 6], None),
        (HEADER + b"x\n" * 9 + ROWS, [3, 6], "line 6 is torn and 4 more; metrics_damaged.csv"),
        ((HEADER + ROWS).replace(b"\n", b"\r\n"), [3, 6], None),
        (HEADER[:15], [], "its header is torn"),
        (HEADER[5:] + ROWS, [], "left out: all of it, for its header is torn"),
        (bytes(200), [], "its header is torn"),
        (b"", [], "its header is torn"),
        (HEADER, [], None),
    ],
)
def test_what_is_whole_of_a_damaged_file_is_read(
    tmp_path: Path, contents: bytes, steps: list[int], said: str | None, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "metrics.csv"
    path.write_bytes(contents)
    logger = MetricsCSV(path)
    logger.continue_from(path, step=8)
    logger.log_metrics({"train/loss": 0.125, "val/loss": 0.5}, step=9)
    expected = [
        {"step": "3", "train/loss": "0.5", "val/loss": ""},
        {"step": "6", "train/loss": "0.25", "val/loss": "0.75"},
        {"step": "9", "train/loss": "0.125", "val/loss": "0.5"},
    ]
    assert rows(path) == [row for row in expected if int(row["step"]) in [*steps, 9]]
    assert (said or "") in caplog.text
    assert bool(caplog.text) == (said is not None)
    kept = path.with_name("metrics_damaged.csv")
    assert kept.exists() == (said is not None)
    assert said is None or kept.read_bytes() == contents


def test_a_late_value_joins_the_row_of_its_step(tmp_path: Path):
    logger = MetricsCSV(tmp_path / "metrics.csv")
    for step in (1, 5, 9):
        logger.log_metrics({"train/loss": step / 10}, step=step)
    logger.log_metrics({"late": 2.0}, step=5)
    logger.log_metrics({"late": 1.0}, step=3)
    logger.log_metrics({"train/loss": 7.0}, step=1)
    logger.log_metrics({"val/loss": 0.5})  # of the last step
    logger.log_metrics({"train/loss": 1.0}, step=10)
    assert rows(logger.path) == [
        {"step": "1", "train/loss": "7.0", "late": "", "val/loss": ""},
        {"step": "3", "train/loss": "", "late": "1.0", "val/loss": ""},
        {"step": "5", "train/loss": "0.5", "late": "2.0", "val/loss": ""},
        {"step": "9", "train/loss": "0.9", "late": "", "val/loss": "0.5"},
        {"step": "10", "train/loss": "1.0", "late": "", "val/loss": ""},
    ]


def test_a_late_value_after_continuing_joins_the_earlier_rows(tmp_path: Path):
    first = MetricsCSV(tmp_path / "first.csv")
    first.log_metrics({"a": 1.0}, step=5)
    first.log_metrics({"a": 2.0}, step=10)
    second = MetricsCSV(tmp_path / "second.csv")
    second.continue_from(first.path, step=10)
    second.log_metrics({"b": 3.0}, step=5)
    second.log_metrics({"b": 4.0}, step=10)
    assert [tuple(row.values()) for row in rows(second.path)] == [("5", "1.0", "3.0"), ("10", "2.0", "4.0")]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_comes_in_whatever_order_the_file_is_the_table(tmp_path: Path, seed: int):
    """Against a dictionary by (step, name), which needs no file."""
    random = np.random.default_rng(seed)
    logger, table = MetricsCSV(tmp_path / "metrics.csv"), {}
    for value in range(60):
        step, name = int(random.integers(12)), f"grösse/{random.integers(4)}"
        logger.log_metrics({name: torch.tensor(float(value))}, step=step)
        table[step, name] = float(value)
        found = {
            (int(row["step"]), name): float(row[name])
            for row in rows(logger.path)
            for name in row
            if name != "step" and row[name]
        }
        assert found == table
        steps = [int(row["step"]) for row in rows(logger.path)]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize("seed", range(5))
def test_rows_that_a_disk_refuses_are_written_when_there_is_room(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Every write of a refusing disk is torn in the middle; the file is always a part of the table, and
    the whole of it after the first write that is not refused.
    """
    random = np.random.default_rng(seed)
    logger, table, refuses = MetricsCSV(tmp_path / "metrics.csv"), {}, False
    for value in range(80):
        step, name = int(random.integers(value // 4 + 2)), f"m{random.integers(4)}"
        refuses = random.random() < 0.6
        with monkeypatch.context() as patch:
            if refuses:
                full_disk(patch)
            caplog.clear()
            logger.log_metrics({name: float(value)}, step=step)
        table[step, name] = float(value)
        assert len(caplog.messages) == refuses
        found = cells(logger.path) if logger.path.exists() else {}
        assert found == table if not refuses else found.keys() <= table.keys()
        assert not logger.path.exists() or logger.path.read_text().endswith("\n")  # no torn row
    with monkeypatch.context() as patch:
        full_disk(patch)
        logger.log_metrics({"m0": 1.0}, step=1000)
    logger.finalize("success")
    assert cells(logger.path) == {**table, (1000, "m0"): 1.0}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def full_disk(patch: pytest.MonkeyPatch) -> None:
    """Of everything that is written to a file now, half arrives."""
    whole_file, opened = io.FileIO, io.open

    class Full(whole_file):
        def write(self, contents: Any, /) -> int:
            if hasattr(self, "is_full"):
                raise OSError(errno.ENOSPC, "No space left on device")
            self.is_full = True
            return super().write(memoryview(contents)[: len(contents) // 2])

    def open_(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+"):
            return opened(file, mode, buffering, *rest, **more)
        raw = Full(file, mode.replace("b", ""))
        return io.BufferedWriter(raw) if buffering else raw

    patch.setattr(io, "open", open_)


def cells(path: Path) -> dict[tuple[int, str], float]:
    return {
        (int(row["step"]), name): float(row[name])
        for row in rows(path)
        for name in row
        if name != "step" and row[name]
    }


def test_a_continued_run_on_a_full_disk_keeps_its_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = MetricsCSV(tmp_path / "metrics.csv")
    for step in (5, 10, 15):
        first.log_metrics({"a": float(step)}, step=step)
    second = MetricsCSV(tmp_path / "metrics.csv")
    with monkeypatch.context() as patch:
        full_disk(patch)
        second.continue_from(first.path, step=10)
        second.log_metrics({"a": 11.0}, step=11)
    second.log_metrics({"a": 12.0}, step=12)
    assert cells(second.path) == {(step, "a"): float(step) for step in (5, 10, 11, 12)}


def test_a_file_too_large_to_go_on_with_is_told_and_kept(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,train/loss\n1,2.0\n")
    os.truncate(path, MOST_BYTES + 1)
    with pytest.raises(UsageError, match=r"metrics\.csv: has more than .* move it away"):
        MetricsCSV(path).continue_from(path, 1)
    assert path.stat().st_size == MOST_BYTES + 1
