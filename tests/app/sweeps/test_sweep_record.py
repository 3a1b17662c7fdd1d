"""sweep.json says of each job what its directory shows, and of the others that they are yet to come."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ddpm.app import lock
from ddpm.app.sweeps import record
from ddpm.app.sweeps.record import Job, Sweep, look
from ddpm.errors import UsageError

ROWS = "step,train/loss,val/loss\n5,0.9,\n10,0.8,0.3\n15,0.7,nan\n20,0.6,0.4\n"


def job(directory: Path, number: int = 0, **known: Any) -> Job:
    return Job(number, directory / str(number), (f"seed={number}", "logger=none"), **known)


def left(job: Job, rows: str = ROWS, **values: Any) -> Job:
    job.directory.mkdir(parents=True)
    (job.directory / "run.json").write_text(json.dumps(values))
    if rows:
        (job.directory / "metrics.csv").write_text(rows)
    return look(job)


def test_how_a_run_ended_and_what_it_measured(tmp_path: Path):
    metrics = {"val/loss": 0.4, "broken": None}
    found = left(job(tmp_path), status="finished", why="all done", step=20, wall_seconds=7.5, metrics=metrics)
    assert (found.status, found.why, found.step, found.seconds) == ("finished", "all done", 20, 7.5)
    assert (found.last, found.best) == (0.4, 0.3)
    assert found.metrics == {"val/loss": 0.4}
    assert found.is_done


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_another_end(status: str, tmp_path: Path):
    assert left(job(tmp_path), status=status).status == status


def test_a_run_that_says_it_runs_runs_while_somebody_writes_there(tmp_path: Path):
    one = left(job(tmp_path), status="running")
    assert (one.status, one.step) == ("killed", 20)
    held = lock.take(one.directory)
    assert look(one).status == "running"
    held.release()
    assert look(one).status == "killed"


@pytest.mark.parametrize(("code", "status"), [(0, "finished"), (1, "failed"), (-9, "failed")])
def test_of_a_job_that_leaves_no_record_its_exit_code_tells(code: int, status: str, tmp_path: Path):
    assert look(job(tmp_path, exit_code=code)).status == status


def test_a_job_without_anything_is_yet_to_come_and_one_that_left_nothing_has_failed(tmp_path: Path):
    assert look(job(tmp_path)).status == "not started"
    (tmp_path / "0").mkdir()
    assert look(job(tmp_path)).status == "failed"


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"status": 3}', "null"])
def test_a_record_that_is_damaged_is_no_end(content: str, tmp_path: Path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "run.json").write_text(content)
    assert look(job(tmp_path)).status in ("failed", "killed")


@pytest.mark.parametrize("rows", ["", "\0", "nothing\n1\n", "step,val/loss\nx,y\n"])
def test_rows_that_are_damaged_say_nothing(rows: str, tmp_path: Path):
    found = left(job(tmp_path), rows, status="finished", step=3)
    assert (found.step, found.last, found.best) == (3, None, None)


def test_it_is_read_as_it_was_written(tmp_path: Path):
    jobs = (
        left(job(tmp_path, 0, max_steps=20), status="finished", metrics={"val/loss": 0.4}),
        job(tmp_path, 1, exit_code=2, seconds=3.0),
        job(tmp_path, 2),
    )
    sweep = Sweep(tmp_path, "train", ("seed=0,1,2",), ("--config-dir=x",), "/home", "now", jobs).looked_at()
    sweep.write()
    assert record.read(tmp_path) == sweep
    values = json.loads((tmp_path / "sweep.json").read_text())
    assert [one["differs"] for one in values["jobs"]] == [{"seed": "0"}, {"seed": "1"}, {"seed": "2"}]
    with (tmp_path / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["job"], row["seed"], row["status"], row["best val/loss"]) for row in rows] == [
        ("0", "0", "finished", "0.3"), ("1", "1", "failed", ""), ("2", "2", "not started", ""),
    ]  # fmt: skip


def test_a_job_that_is_chosen_late_joins(tmp_path: Path):
    sweep = Sweep(tmp_path, "train", (), (), "/", "now")
    sweep = sweep.with_job(1, overrides=("a=1",)).with_job(0, overrides=("a=2",)).with_job(1, exit_code=1)
    assert [(one.number, one.overrides, one.exit_code) for one in sweep.jobs] == [
        (0, ("a=2",), None), (1, ("a=1",), 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"layout": 2}', "is of layout 2, and this version knows 1"),
        ("{}", "is of layout None"),
        ("[]", "holds no keys"),
        ("{", "is no json"),
        ('{"layout": 1}', "is not as a sweep writes it"),
        ('{"layout": 1, "program": 1, "command": [], "flags": [], "working_directory": "", "started": "",'
         ' "jobs": []}', "is not as a sweep writes it"),
        ('{"layout": 1, "program": "train", "command": [], "flags": [], "working_directory": "",'
         ' "started": "", "jobs": [{"number": "x"}]}', "is not as a sweep writes it"),
        ('{"layout": 1, "program": "train", "command": [], "flags": [], "working_directory": "",'
         ' "started": "", "jobs": 7}', "is not as a sweep writes it"),
    ],
)  # fmt: skip
def test_one_that_is_damaged_or_newer_is_told(content: str, said: str, tmp_path: Path):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(UsageError, match=said):
        record.read(tmp_path)


def test_where_there_is_none(tmp_path: Path):
    with pytest.raises(UsageError, match=r"is no sweep, it holds no sweep\.json"):
        record.read(tmp_path)
