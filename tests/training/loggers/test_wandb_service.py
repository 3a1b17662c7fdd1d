"""W&B's own process may stand still: a run that begins, ends or has ended does not stand still with it."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from training.loggers.test_wandb import history

from ddpm.training.loggers import WandbLogger, wandb_service
from ddpm.training.loggers import wandb as ours


@pytest.fixture(autouse=True)
def no_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What is waited for; it comes with the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def test_what_comes_back_is_handed_on():
    assert wandb_service.within(20, lambda: 7) == 7
    with pytest.raises(KeyError):
        wandb_service.within(20, lambda: {}["x"])


def test_what_does_not_come_back_is_left(never: threading.Event, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wandb_service, "KILLED", 0.1)
    said: list[float] = []
    with pytest.raises(wandb_service.SilentError, match=r"has not answered within 0\.5 s"):
        wandb_service.within(0.5, lambda: never.wait(20), each=0.1, on_waiting=said.append)
    assert len(said) >= 2


def test_one_that_has_ended_and_is_named_all_the_same_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wandb_service.forget()
    gone = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(gone))
    monkeypatch.setenv("WANDB_SERVICE", f"3-{os.getpid()}-unix-{gone}")
    logger = WandbLogger(save_dir=tmp_path, mode="offline")
    logger.log_metrics({"a": 2.0}, step=1)
    logger.finish(0)
    assert [row["a"] for row in history(tmp_path)] == [2.0]


def test_a_process_that_stands_still_holds_no_end_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(ours, "TO_FINISH", 0.2)
    logger = WandbLogger(save_dir=tmp_path / "a", finish_timeout=0.1)
    logger.log_metrics({"a": 1.0}, step=1)
    process = wandb_service._process()
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    logger.finish(0)
    assert time.monotonic() - began < 20
    assert process.wait(timeout=20) == -signal.SIGKILL
    ours_alone = [record for record in caplog.records if record.name.startswith("ddpm")]
    (warning,) = [record.getMessage() for record in ours_alone if record.levelno >= logging.WARNING]
    assert warning == (
        "W&B: its process has not answered within 0.3 s; what it has not sent stays on disk, and is sent by: "
        f"wandb sync {logger.sync_dirs[0]}"
    )
    monkeypatch.undo()
    after = WandbLogger(save_dir=tmp_path / "b", mode="offline")
    after.log_metrics({"a": 2.0}, step=1)
    after.finish(0)
    assert [row["a"] for row in history(tmp_path / "b")] == [2.0]


def test_a_beginning_that_does_not_come_back_goes_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, never: threading.Event, caplog: pytest.LogCaptureFixture
):
    init, modes = wandb.init, []

    def stands_still(mode: str, **begin: Any) -> Any:
        modes.append(mode)
        if mode == "online":
            never.wait(20)
        return init(mode="disabled", **begin)

    monkeypatch.setattr(wandb, "init", stands_still)
    monkeypatch.setattr(ours, "TO_BEGIN", 1.0)
    monkeypatch.setattr(wandb_service, "KILLED", 0.1)
    logger = WandbLogger(save_dir=tmp_path, mode="online", init_timeout=0.1)
    logger.log_metrics({"a": 1.0}, step=1)
    assert modes == ["online", "offline"]
    assert "its process has not answered within 1.1 s): this run is logged offline instead" in caplog.text
    logger.finish(0)


def test_to_wait_for_ever_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    logger = WandbLogger(save_dir=tmp_path, mode="disabled", finish_timeout=0)
    logger.log_metrics({"a": 1.0}, step=1)
    within = wandb_service.within
    monkeypatch.setattr(
        wandb_service, "within", lambda seconds, call, **rest: within(seconds, call, each=0.1, **rest)
    )
    monkeypatch.setattr(logger.experiment, "finish", lambda exit_code: time.sleep(0.5))
    logger.finish(0)
    assert "sending, for 0 s so far; finish_timeout=0 waits for ever" in caplog.text


STOPPED = """
import os, signal, sys
from ddpm.training.loggers import WandbLogger, wandb, wandb_service
wandb.TO_FINISH = 0.5
logger = WandbLogger(save_dir=sys.argv[1], mode="offline", finish_timeout=0.5)
logger.log_metrics({"a": 1.0}, step=1)
logger.finish(0)
wandb_service._process().send_signal(signal.SIGSTOP)
"""


@pytest.mark.e2e
@pytest.mark.slow
def test_a_process_that_stands_still_keeps_no_program_from_its_end(tmp_path: Path):
    """Its own hooks at the end wait for it."""
    done = subprocess.run([sys.executable, "-c", STOPPED, str(tmp_path)], env=dict(os.environ), timeout=300)
    assert done.returncode == 0
