"""A job of SLURM that is queued again, by a scontrol that stands for SLURM's."""

import os
import signal
from pathlib import Path

import pytest
from conftest import accepted, run_here

from ddpm.app import requeue


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a scontrol writes what it was asked; it fails where there is a file `fails` beside."""
    program, asked = tmp_path / "bin" / "scontrol", tmp_path / "asked"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {asked}\n'
        f'if [ -e {tmp_path}/fails ]; then echo "Invalid job id" >&2; exit 3; fi\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    return asked


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP])
def test_the_job_is_queued_again(scontrol: Path, signum: int):
    assert requeue.requeue(signum) == "scontrol requeue 4711: queued again"
    assert scontrol.read_text() == "requeue 4711\n"


def test_a_person_who_ends_it_by_hand_means_it(scontrol: Path):
    assert requeue.requeue(signal.SIGINT) is None
    assert not scontrol.exists()


def test_a_task_of_an_array_is_queued_by_the_number_of_the_array(
    scontrol: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "4700")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "11")
    requeue.requeue(signal.SIGTERM)
    assert scontrol.read_text() == "requeue 4700_11\n"


def test_what_scontrol_refuses_is_said(scontrol: Path, caplog: pytest.LogCaptureFixture):
    (scontrol.parent / "fails").touch()
    outcome = requeue.requeue(signal.SIGTERM)
    assert outcome == "scontrol requeue 4711: exit code 3, Invalid job id"
    assert "the job is not queued again: scontrol requeue 4711: exit code 3" in caplog.text


def test_a_machine_without_scontrol_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)
    outcome = requeue.requeue(signal.SIGTERM)
    assert outcome is not None
    assert outcome.startswith("scontrol requeue 4711: ")
    assert "scontrol" in caplog.text


def test_outside_slurm_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert run_here(monkeypatch, "train", "requeue=true", prepare=accepted) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: requeue=true: ")
    assert "$SLURM_JOB_ID" in said
    assert not list(tmp_path.iterdir())
