"""A run that is asked to end saves first, whatever it is doing; and saves what is due by the clock."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import patch_time
from lightning.pytorch import Callback, LightningModule, Trainer
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.runtime.peers import Failure, Peers
from ddpm.training.callbacks import interruption
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.interruption import AGREE_EVERY, Interruption, leader_alone
from ddpm.training.checkpoints import find
from ddpm.training.ending import Interrupted, TrainingError


class Struck(Callback):
    """Somebody sends this process a signal at a place in the run."""

    def __init__(self, place: str, signum: int):
        self.place, self.signum = place, signum
        self.validated: list[int] = []
        self.measured: dict[str, Any] | None = None

    def strike(self, place: str) -> None:
        if place == self.place:
            self.place = ""
            os.kill(os.getpid(), self.signum)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        self.strike(f"training {trainer.global_step}")

    def on_validation_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        self.validated.append(batch_idx)
        self.strike(f"validation {batch_idx}")

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.measured = dict(trainer.callback_metrics)

    def on_save_checkpoint(self, *arguments: Any) -> None:
        self.strike("saving")


def fit(directory: Path, *callbacks: Callback, max_steps: int = 8) -> Trainer:
    trainer = make_trainer(directory, max_steps, *callbacks)
    trainer.val_check_interval = 4
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    return trainer


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP], ids=lambda s: s.name)
def test_every_signal_saves_the_step(tmp_path: Path, signum: int):
    with pytest.raises(Interrupted) as raised:
        fit(tmp_path, Checkpoints(every_n_steps=100), Struck("training 2", signum), Interruption())
    assert raised.value.signum == signum
    assert find(tmp_path)[1]["global_step"] == 3


def test_a_validation_is_left_and_its_part_is_nowhere(tmp_path: Path):
    struck = Struck("validation 1", signal.SIGTERM)
    with pytest.raises(Interrupted):
        fit(tmp_path, Checkpoints(every_n_steps=100), struck, Interruption())
    assert struck.validated == [0, 1]
    assert find(tmp_path)[1]["global_step"] == 4
    assert struck.measured is not None
    assert "val/loss" not in struck.measured


def test_what_is_being_saved_is_saved(tmp_path: Path):
    saving = Checkpoints(every_n_steps=5)
    with pytest.raises(Interrupted):
        fit(tmp_path, saving, Struck("saving", signal.SIGTERM), Interruption())
    assert [find(path)[1]["global_step"] for path in tmp_path.rglob("step_*.ckpt")] == [5]


class Late(Checkpoints):
    """Checkpoints whose clock says at one step that it is time."""

    due_at = 3

    def overdue(self) -> bool:
        return self.due_at == self.trainer.global_step

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.trainer = trainer


def test_checkpoints_that_are_due_by_the_clock_are_saved(tmp_path: Path):
    fit(tmp_path, Late(every_n_steps=100), Interruption())
    assert sorted(find(path)[1]["global_step"] for path in tmp_path.rglob("step_*.ckpt")) == [3, 8]


def test_the_handlers_of_lightning_do_not_come_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its handler of SIGTERM tells every rank in a collective, which others are not in, and ends with 0."""
    registered = []
    connector = "lightning.pytorch.trainer.connectors.signal_connector._SignalConnector"
    monkeypatch.setattr(f"{connector}._register_signal", staticmethod(lambda *_: registered.append(_)))
    fit(tmp_path, max_steps=1)
    assert registered, "a trainer without the callback has them"
    registered.clear()
    fit(tmp_path, Interruption(), max_steps=1)
    assert not registered


@contextmanager
def two_ranks(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, others: list[list[float]]
) -> Iterator[list[int]]:
    """The trainer takes itself for one of two, whose other has these numbers in turn; yields the steps at
    which they ask each other.
    """
    asked: list[int] = []

    def all_reduce(numbers: torch.Tensor, op: Any) -> None:
        theirs = others[min(len(asked), len(others) - 1)]
        asked.append(trainer.global_step)
        numbers.copy_(torch.maximum(numbers, torch.tensor(theirs[: len(numbers)])))

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(type(trainer), "world_size", 2)
    yield asked


class Steps(Trainer):
    """Stands for a trainer at a step."""

    global_step = 0
    max_steps = 1000


@pytest.fixture
def steps(tmp_path: Path) -> Steps:
    return Steps(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )


def walk(trainer: Steps, callback: Interruption, to: int) -> None:
    for step in range(1, to + 1):
        trainer.global_step = step
        callback.on_step(trainer, make_module(), step)


def test_ranks_ask_each_other_about_once_a_second(steps: Steps, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(10_000))
    patch_time(monkeypatch, interruption, monotonic=lambda: 0.001 * next(clock))
    with two_ranks(steps, monkeypatch, [[0, 0, 0.0]]) as asked:
        walk(steps, Interruption(), 60)
    assert asked[:2] == [1, 2]
    assert {b - a for a, b in pairwise(asked[1:])} == {interruption.MOST_STEPS}
    with two_ranks(steps, monkeypatch, [[0, 0, 0.3]]) as asked:  # the other is slow
        walk(steps, Interruption(), 30)
    assert {b - a for a, b in pairwise(asked[1:])} == {3}
    with two_ranks(steps, monkeypatch, [[0, 0, 7.0]]) as asked:
        walk(steps, Interruption(), 30)
    assert asked == list(range(1, 31))


def test_a_signal_to_another_rank_ends_this_one_at_the_same_step(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
):
    quiet = [0.0, 0.0, 7.0]
    with (
        two_ranks(steps, monkeypatch, [quiet, quiet, [signal.SIGHUP, 0.0, 7.0]]) as asked,
        pytest.raises(Interrupted) as raised,
    ):
        walk(steps, Interruption(), 30)
    assert raised.value.signum == signal.SIGHUP
    assert asked == [1, 2, 3]


def peers_of(rank: int) -> Peers:
    return Peers(rank, 2, 100.0, on_signal=lambda _: None, on_failure=lambda _: None)


def test_beside_the_leader_a_failure_of_another_is_noticed(steps: Steps, monkeypatch: pytest.MonkeyPatch):
    callback = Interruption(peers=peers_of(1))
    steps.callbacks.append(callback)
    monkeypatch.setattr(type(steps), "is_global_zero", False)
    callback.peers.failure = Failure("rank 0: broken", (0,))
    seen = []

    def beside() -> None:
        with leader_alone(steps) as leads:
            seen.append((leads, callback.peers.state.waiting))

    with pytest.raises(TrainingError, match="rank 0: broken"):
        beside()
    assert seen == [(False, True)]


def test_the_leader_says_that_it_is_done(steps: Steps):
    callback = Interruption(peers=peers_of(0))
    steps.callbacks.append(callback)
    for turn in (1, 2):
        with leader_alone(steps) as leads:
            assert leads
            assert callback.peers.state.phase == "grid"
        assert callback.turn == turn
    assert list(callback.peers._outbox) == [{"turn": 1}, {"turn": 2}]
    assert not callback.peers.state.waiting


def test_ranks_ask_each_other_again_where_a_run_has_gone_back(monkeypatch: pytest.MonkeyPatch):
    """Behind a return to a checkpoint the step that they had agreed on lies far ahead."""
    asked: list[int] = []
    trainer: Any = SimpleNamespace(world_size=2, max_steps=1000, callbacks=[])
    monkeypatch.setattr(
        interruption, "_most", lambda trainer, *numbers: asked.append(1) or [0.0, 0.0, AGREE_EVERY]
    )
    callback, module = Interruption(), LightningModule()
    callback.on_train_start(trainer, module)
    callback.on_step(trainer, module, 500)
    callback.on_step(trainer, module, 3)
    assert len(asked) == 1
    callback.on_train_start(trainer, module)
    callback.on_step(trainer, module, 3)
    assert len(asked) == 2
