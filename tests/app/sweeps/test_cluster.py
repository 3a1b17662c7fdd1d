"""What a cluster's queue says of jobs, and what a sweep's record makes of it."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ddpm.app.sweeps import cluster, queued, record
from ddpm.app.sweeps.record import Job
from ddpm.errors import UsageError
from ddpm.runtime import processes


@pytest.fixture
def squeue(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Says what squeue answers; counts the questions."""
    asked: list[list[str]] = []

    def answers(text: str | None) -> list[list[str]]:
        def run(command: list[str], **_: Any) -> Any:
            asked.append(command)
            if text is None:
                raise FileNotFoundError("squeue")
            return subprocess.CompletedProcess(command, 0, stdout=text)

        monkeypatch.setattr(cluster.subprocess, "run", run)
        cluster.forget()
        return asked

    yield answers
    cluster.forget()


def test_states_are_asked_for_all_jobs_at_once(squeue: Any):
    asked = squeue("100_0 RUNNING\n100_1 PENDING\n100_2 COMPLETING\n101 REQUEUE_HOLD\n")
    found = [cluster.state(f"slurm:{number}") for number in ("100_0", "100_1", "100_2", "101", "99")]
    assert found == ["running", "queued", "running", "queued", None]
    assert len(asked) == 1
    assert "--array" in asked[0]


def test_a_silent_slurm_is_no_end_of_a_job(squeue: Any, tmp_path: Path):
    squeue(None)
    with pytest.raises(cluster.SilentError):
        cluster.state("slurm:1")
    assert record.look(Job(0, tmp_path / "0", queued="slurm:1")).status == "queued"


def test_a_process_of_this_machine_is_known_by_its_start():
    here = cluster.name_of("local", str(os.getpid()))
    assert cluster.state(here) == "running"
    assert cluster.state(f"local:{os.getpid()}:0") is None
    assert cluster.state("local:x:y") is None
    assert cluster.state(None) is None
    assert processes.start_of(os.getpid()) == here.rpartition(":")[2]


def test_how_jobs_are_ended():
    assert cluster.end(["slurm:100_0", "slurm:100_1", "slurm:102"]) == (
        "scancel --state=PENDING 100 102; scancel --signal=INT 100 102"
    )
    assert cluster.end(["local:7:1", "local:8:2"]) == "kill 7 8"


def test_a_job_is_what_its_directory_and_the_queue_say(squeue: Any, tmp_path: Path):
    squeue("1 PENDING\n2 RUNNING\n")
    waits, runs, gone = (Job(0, tmp_path / "0", queued=f"slurm:{number}") for number in (1, 2, 3))
    assert record.look(waits).status == "queued"
    assert record.look(runs).status == "running"
    assert record.look(gone).status == "failed"
    assert "slurm:3 has left the queue" in str(record.look(gone).why)
    assert record.look(replace(waits, exit_code=1)).status == "failed"
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "run.json").write_text('{"status": "interrupted", "starts": []}')
    assert record.look(waits).status == "queued", "it was preempted, and waits to go on"
    (tmp_path / "0" / "run.json").write_text('{"status": "finished", "starts": []}')
    assert record.look(runs).status == "finished"
    assert record.look(gone).status == "finished"


def test_the_name_in_the_queue_is_kept(tmp_path: Path, squeue: Any):
    squeue("1 PENDING\n")
    sweep = record.Sweep(tmp_path, "train", ("seed=0",), (), str(tmp_path), record.now())
    sweep.with_job(0, queued="slurm:1", overrides=("seed=0",)).write()
    (job,) = record.read(tmp_path).jobs
    assert (job.queued, job.status) == ("slurm:1", "queued")


@pytest.fixture
def run_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The run directory of a job, with a record; asked as often as one likes."""
    slept: list[float] = []
    monkeypatch.setattr(queued.time, "sleep", slept.append)

    def leave(status: str, answers: list[str | None]) -> tuple[Path, list[float]]:
        left = iter(answers)
        monkeypatch.setattr(cluster, "state", lambda _: next(left))
        (tmp_path / "run.json").write_text(json.dumps({"layout": 1, "status": status, "exit_code": 0}))
        return tmp_path, slept

    return leave


def test_a_job_that_is_through_and_in_the_queue_yet_is_waited_for(run_of_a_job: Any):
    directory, slept = run_of_a_job("finished", ["running", "running", None])
    assert not queued.is_there("slurm:100", directory, before=0)
    assert len(slept) == 2


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_one_that_may_go_on_is_there(run_of_a_job: Any, status: str):
    directory, slept = run_of_a_job(status, ["running"])
    assert queued.is_there("slurm:100", directory, before=0)
    assert slept == []


def test_what_an_earlier_one_has_left_says_nothing_of_this_one(run_of_a_job: Any):
    directory, _ = run_of_a_job("finished", ["queued"])
    assert queued.is_there("slurm:100", directory, before=record.stamp(directory))


def test_one_that_does_not_leave_is_named(run_of_a_job: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queued, "LEAVES", -1)
    directory, _ = run_of_a_job("finished", ["running"] * 3)
    with pytest.raises(UsageError, match=r"slurm:100 has done its work in .* try again"):
        queued.is_there("slurm:100", directory, before=0)
