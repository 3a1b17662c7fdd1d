"""Ranks that SLURM has started do not wait for a leader that cannot begin."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ddpm.app import lock, refusal
from ddpm.runtime.peers import Failure, Peers


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of the first of two processes of a job."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "MASTER_"))]:
        monkeypatch.delenv(name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train.sh", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


def test_a_rank_that_comes_later_is_told(job: dict[str, str]):
    heard: list[Failure] = []

    def end(failure: Failure) -> None:
        heard.append(failure)
        other.leave(1.0)

    other = Peers(1, 2, 1000.0, on_signal=lambda _: None, on_failure=end)
    other.begin("127.0.0.1", int(job["MASTER_PORT"]), on_this_machine=True)
    refusal.tell_ranks()
    assert [(failure.ranks, failure.raised) for failure in heard] == [((0,), True)]
    assert "cannot begin" in heard[0].text


@pytest.mark.parametrize(
    "variables",
    [{"SLURM_PROCID": "1"}, {"SLURM_NTASKS": "1"}, {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2"}],
)
def test_where_nobody_would_wait_nobody_is_waited_for(
    job: dict[str, str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Peers, "begin", lambda *_, **__: pytest.fail("it waits"))
    refusal.tell_ranks()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "cause", [pytest.param("held", marks=pytest.mark.slow), pytest.param("name", marks=pytest.mark.long)]
)
def test_both_end_where_the_leader_is_refused(job: dict[str, str], cause: str, tmp_path: Path):
    """By another writer, or by what only the first use of a logger can tell."""
    words = ["experiment=smoke", "trainer.devices=2", "hydra.run.dir=run"]
    if cause == "held":
        (tmp_path / "run").mkdir()
        held = lock.take(tmp_path / "run")
    else:
        held = None
        words += ["logger=tensorboard", "logger.tensorboard.save_dir=/proc/none"]
    ranks = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path,
            env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in ranks]
    if held is not None:
        held.release()
    assert [process.returncode for process in ranks] == [2, 1], said
    assert said[0].count("error") == 1
    assert "error" not in said[1]
