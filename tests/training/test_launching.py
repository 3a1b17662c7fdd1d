"""The ranks of one machine, and who answers for them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies.launchers import subprocess_script
from lightning.pytorch import Trainer

from ddpm.training import launching
from ddpm.training.launching import ACCUMULATION, PARENT, Ranks, answer_for_ranks, children, kill_children


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # else ranks are Hydra programs
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # what a launch leaves is taken back
        monkeypatch.delenv(name)
    found = Trainer(
        accelerator="cpu", devices=3, strategy="ddp", logger=False, default_root_dir=tmp_path,
        enable_checkpointing=False,
    )  # fmt: skip
    answer_for_ranks(found)
    return found


def in_place_of_the_program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    command = [sys.executable, "-c", code]
    monkeypatch.setattr(
        "lightning.pytorch.strategies.launchers.subprocess_script._basic_subprocess_cmd", lambda: command
    )


def test_a_rank_that_fails_does_not_have_the_leader_killed(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    """Lightning's observer would kill this very process, within seconds."""
    observers: list[Any] = []
    monkeypatch.setattr(subprocess_script._ChildProcessObserver, "start", observers.append)
    in_place_of_the_program(monkeypatch, "import os, sys; sys.exit(3 * int(os.environ['LOCAL_RANK']))")
    assert trainer.strategy.launcher.launch(lambda: "trained", trainer=trainer) == "trained"
    until = time.monotonic() + 30
    while None in children(trainer).values():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert children(trainer) == {1: 3, 2: 6}
    assert not observers


def test_ranks_are_told_the_leaders_micro_batches(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    in_place_of_the_program(monkeypatch, f"import os, sys; sys.exit(int(os.environ['{ACCUMULATION}']))")
    trainer.accumulate_grad_batches = 4
    trainer.strategy.launcher.launch(lambda: None, trainer=trainer)
    until = time.monotonic() + 30
    while None in children(trainer).values():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert children(trainer) == {1: 4, 2: 4}
    assert ACCUMULATION not in os.environ


def test_a_second_training_has_the_same_ranks(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    in_place_of_the_program(monkeypatch, "")
    launcher = trainer.strategy.launcher
    assert isinstance(launcher, Ranks)
    launcher.launch(lambda: None)
    first = list(launcher.procs)
    launcher.launch(lambda: None)
    assert launcher.procs == first
    for process in first:
        process.wait(timeout=30)


def test_a_rank_knows_who_started_it(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    file = tmp_path / "parent"
    in_place_of_the_program(monkeypatch, f"import os; open({str(file)!r}, 'w').write(os.environ[{PARENT!r}])")
    trainer.strategy.launcher.launch(lambda: None)
    for process in trainer.strategy.launcher.procs:
        process.wait(timeout=30)
    assert int(file.read_text()) == os.getpid()
    assert launching.parent() is None, "and no process that this one starts for something else"


def test_what_is_left_is_ended(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    in_place_of_the_program(monkeypatch, "import time; time.sleep(100)")
    trainer.strategy.launcher.launch(lambda: None)
    assert set(children(trainer).values()) == {None}
    kill_children(trainer)
    for process in trainer.strategy.launcher.procs:
        assert process.wait(timeout=30) == -9


def test_who_brings_another_launcher_keeps_it(tmp_path: Path):
    class Mine(subprocess_script._SubprocessScriptLauncher):
        pass

    trainer = Trainer(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path)
    mine = Mine(LightningEnvironment(), 1, 1)
    trainer.strategy._launcher = mine
    answer_for_ranks(trainer)
    assert trainer.strategy.launcher is mine
    assert children(trainer) == {}


def test_no_rank_is_started_where_a_scheduler_does(trainer: Trainer, monkeypatch: pytest.MonkeyPatch):
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("a process was started")

    monkeypatch.setattr(subprocess, "Popen", never)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert trainer.strategy.launcher.launch(lambda: 7) == 7
