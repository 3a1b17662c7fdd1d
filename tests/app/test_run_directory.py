"""One directory for all processes of a run, and none shared by two runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.app import run_directory
from ddpm.errors import UsageError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_directory._run_dir.cache_clear()
    monkeypatch.chdir(tmp_path)
    for name in (
        "WORLD_SIZE",
        "SLURM_NTASKS",
        "TORCHELASTIC_RUN_ID",
        "GROUP_WORLD_SIZE",
        "SLURM_PROCID",
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
    ):
        monkeypatch.delenv(name, raising=False)


def test_a_lone_process_gets_date_time_and_slug(tmp_path: Path):
    found = Path(run_directory._run_dir("train", "my pictures/x", "cosine", ""))
    assert found.parent == tmp_path / "logs" / "train"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_my-pictures-x_cosine", found.name)
    assert run_directory._run_dir("train", "my pictures/x", "cosine", "") == str(found)


def test_two_runs_of_one_second_get_two_directories(tmp_path: Path):
    wanted = tmp_path / "logs/train/now"
    made = [run_directory.claim(wanted) for _ in range(3)]
    assert [path.name for path in made] == ["now", "now-2", "now-3"]


def test_processes_of_a_job_find_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "my job/7")
    assert Path(run_directory._run_dir("train", "digits")).name == "torchrun_my-job-7_digits"
    run_directory._run_dir.cache_clear()
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    monkeypatch.setenv("SLURM_PROCID", "3")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert Path(run_directory._run_dir("train", "digits")).name == "slurm_4711_0_digits"


def test_a_lone_process_of_a_cluster_is_a_lone_process(monkeypatch: pytest.MonkeyPatch):
    """Every batch script and interactive shell of SLURM has these; two runs in it are two runs."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert not Path(run_directory._run_dir("train", "digits")).name.startswith("slurm")


def test_torchrun_without_an_id_serves_one_node_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--rdzv-id"):
        run_directory._run_dir("train")


@pytest.mark.e2e
@pytest.mark.skipif(not Path("/proc").exists(), reason="reads the start of the parent from /proc")
def test_torchruns_children_agree_without_an_id(tmp_path: Path):
    """Two processes of one parent, started a second and more apart, name one directory."""
    code = "from ddpm.app.run_directory import _run_dir; print(_run_dir('train'))"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
    found = []
    for _ in range(2):
        command = ["sh", "-c", f'sleep 1.1; exec "{sys.executable}" -c "{code}"']
        found.append(
            subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout
        )
    assert found[0] == found[1] != ""
