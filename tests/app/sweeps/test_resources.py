"""What a job takes of a cluster follows from its trainer; what cannot be queued is refused at once."""

import importlib.util
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import accepted, run_here

from ddpm.app.sweeps import resources, shares
from ddpm.app.sweeps.resources import Needs, needed
from ddpm.errors import UsageError

NOTHING_SAID = {"cluster": "slurm", "wait": True, "timeout_min": 60, "signal_delay_s": 120}


def config(**trainer: Any) -> dict[str, Any]:
    return {"trainer": {"accelerator": "auto", "devices": "auto", "num_nodes": 1, **trainer}}


@pytest.mark.parametrize(
    ("settings", "trainer", "needs"),
    [
        ({}, {"devices": 4}, Needs(1, 4, 4)),
        ({}, {"devices": 8, "num_nodes": 2, "accelerator": "gpu"}, Needs(2, 8, 8)),
        ({}, {"devices": [0, 2]}, Needs(1, 2, 2)),
        ({}, {"devices": "0,2"}, Needs(1, 2, 2)),
        ({}, {"devices": 2, "accelerator": "cpu"}, Needs(1, 2, None)),
        ({"gres": "gpu:a100:4"}, {"devices": 4}, Needs(1, 4, None)),
        ({"gpus_per_task": 1}, {"devices": 4}, Needs(1, 4, None)),
        ({}, {}, Needs(1, 1, 1, ("trainer.devices=1",))),
        ({"tasks_per_node": 4}, {}, Needs(1, 4, 4, ("trainer.devices=4",))),
        ({"gpus_per_node": 4}, {"devices": -1}, Needs(1, 4, 4, ("trainer.devices=4",))),
        (
            {"nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4},
            {"devices": 4, "num_nodes": 2},
            Needs(2, 4, 4),
        ),
    ],
)
def test_a_job_takes_what_its_trainer_uses(settings: dict[str, Any], trainer: dict[str, Any], needs: Needs):
    assert needed(NOTHING_SAID | settings, config(**trainer)) == needs


def test_a_program_without_a_trainer_takes_one_device():
    assert needed(NOTHING_SAID, {}) == Needs(1, 1, 1)


@pytest.mark.parametrize(
    ("settings", "trainer", "said"),
    [
        (
            {"tasks_per_node": 4},
            {"devices": 2},
            "tasks_per_node=4: and trainer.devices=2; leave .* out, it foll",
        ),
        ({"gpus_per_node": 4}, {"devices": 2}, "gpus_per_node=4: and trainer.devices=2"),
        ({"nodes": 2}, {"devices": 2}, "nodes=2: and trainer.num_nodes=1"),
        (
            {"gpus_per_node": 1},
            {"devices": 1, "accelerator": "cpu"},
            "gpus_per_node=1: and trainer.accelerator=cpu",
        ),
    ],
)
def test_what_the_trainer_does_not_say_is_refused(
    settings: dict[str, Any], trainer: dict[str, Any], said: str
):
    with pytest.raises(UsageError, match=said):
        needed(NOTHING_SAID | settings, config(**trainer))


@pytest.fixture
def with_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.launcher.cluster=moon"], "cluster=moon: must be slurm or local"),
        (["hydra.launcher.tasks_per_node=4", "trainer.devices=2"], "tasks_per_node=4: and trainer.devices=2"),
        (
            ["trainer.devices=1,2", "hydra.launcher.tasks_per_node=1"],
            "tasks_per_node=1: and trainer.devices=2",
        ),
        (["hydra.launcher.timeout_min=0"], "timeout_min=0: must be at least 1"),
        (["hydra.launcher.timeout_min=2"], "signal_delay_s=120: must lie within the job's time"),
        (
            ["hydra.launcher.cluster=local", "trainer.num_nodes=2"],
            "trainer.num_nodes=2: .*local is one machine",
        ),
        (["hydra.launcher.cluster=local", "trainer.accelerator=gpu"], "trainer.devices=1: there are 0 GPUs"),
        (["'seed=range(0,0)'"], "seed=range(0,0): holds no value, and a sweep of no jobs is none"),
    ],
)
@pytest.mark.usefixtures("with_slurm")
def test_what_cannot_be_queued_is_told_in_one_message(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(shares, "gpus_here", lambda: 0)
    monkeypatch.chdir(tmp_path)
    words = [word.strip("'") for word in words]
    assert run_here(monkeypatch, "train", "-m", "hydra/launcher=slurm", *words, prepare=accepted) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())
    assert re.search(said.replace("(", r"\(").replace(")", r"\)"), told)


def test_a_machine_without_slurm_is_told_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "-m", "hydra/launcher=slurm", "seed=0,1", prepare=accepted) == 2
    told = capsys.readouterr().err
    assert "sbatch is not found" in told
    assert "hydra.launcher.cluster=local" in told
    assert not list(tmp_path.iterdir())


def test_without_submitit_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        resources.importlib.util, "find_spec", lambda name: None if name == "submitit" else find(name)
    )
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "-m", "hydra/launcher=slurm", "seed=0,1", prepare=accepted) == 2
    assert "pip install -e '.[slurm]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_sweeper_that_learns_from_jobs_waits_for_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(UsageError, match="wait=false: this sweeper chooses jobs by what came out"):
        resources.check({**NOTHING_SAID, "wait": False}, [], is_basic=False)
