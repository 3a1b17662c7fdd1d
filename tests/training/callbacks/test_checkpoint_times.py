"""When a run is saved, and what becomes of it when it cannot be."""

import logging
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import patch_time
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from models import make_module, make_trainer
from training.checkpoints.content import differences

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks import checkpoints
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.interruption import Interruption
from ddpm.training.checkpoints import AtomicCheckpointIO, at_step, find, load, numbered
from ddpm.training.ending import TrainingError


def fit(
    directory: Path, max_steps: int, *callbacks: Callback, ckpt: Path | None = None, background: bool = True
) -> Trainer:
    trainer = make_trainer(directory, max_steps, *callbacks)
    trainer.strategy.checkpoint_io = AtomicCheckpointIO(background)
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return trainer


def steps(directory: Path) -> list[int]:
    return sorted(numbered(directory / "checkpoints"))


class AfterStep(Callback):
    """Does something when a step is made, before it is saved."""

    def __init__(self, step: int, what: Any):
        self.step, self.what = step, what

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.what(trainer)


def test_what_is_written_in_the_background_is_the_same(tmp_path: Path):
    for name in ("behind", "at once"):
        fit(tmp_path / name, 6, Checkpoints(every_n_steps=2, keep=2), background=name == "behind")
    for step in (4, 6):
        one, other = (load(tmp_path / name / "checkpoints" / at_step(step)) for name in ("behind", "at once"))
        for state in (one, other):
            state["callbacks"]["TrainingRows"].pop("seconds")
        assert not [*differences(one, other)]
    assert steps(tmp_path / "behind") == steps(tmp_path / "at once") == [4, 6]
    last = tmp_path / "behind/checkpoints/last.ckpt"
    assert last.samefile(last.with_name(at_step(6)))


def test_continuing_is_bit_equal(tmp_path: Path):
    fit(tmp_path / "whole", 7, Checkpoints(every_n_steps=100))
    fit(tmp_path / "parts", 3, Checkpoints(every_n_steps=2))
    fit(tmp_path / "parts", 7, Checkpoints(every_n_steps=2), ckpt=tmp_path / "parts/checkpoints/last.ckpt")
    whole, parts = (find(tmp_path / name)[1] for name in ("whole", "parts"))
    for key in ("state_dict", "ema", "optimizer_states", "lr_schedulers", "global_step"):
        assert not [*differences(whole[key], parts[key])], key


def test_a_checkpoint_is_due_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = time.monotonic()
    patch_time(monkeypatch, checkpoints, monotonic=lambda: now)
    saving = Checkpoints(every_n_steps=1000, every_n_minutes=30)

    def pass_time(minutes: float) -> Any:
        def passes(_: Trainer) -> None:
            nonlocal now
            now += 60 * minutes

        return passes

    passing = [AfterStep(2, pass_time(29)), AfterStep(3, pass_time(2)), AfterStep(6, pass_time(29))]
    fit(tmp_path, 8, *passing, saving, Interruption())
    assert steps(tmp_path) == [3, 8]
    assert not saving.overdue()
    now += 1900
    assert saving.overdue()
    assert not Checkpoints(every_n_minutes=None).overdue()


@pytest.mark.parametrize("minutes", [0, -1, float("nan")])
def test_no_time_is_no_interval(minutes: float):
    with pytest.raises(ValueError, match=r"every_n_minutes=.* must be above 0, or null"):
        Checkpoints(every_n_minutes=minutes)


def test_what_killed_writes_left_goes_and_all_else_stays(tmp_path: Path):
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    theirs = {"notes.part", ".hidden", "step_5_good.ckpt", "theirs.ckpt"}
    for name in theirs | {".step_00000007.ckpt.part", ".last.ckpt.part", ".best.ckpt.part"}:
        (directory / name).write_text("half")
    fit(tmp_path, 2, Checkpoints())
    assert {path.name for path in directory.iterdir()} == theirs | {at_step(2), "last.ckpt"}


class FullDisk:
    """A disk that is full from now on, until it is not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.is_full = False
        save = torch.save

        def saves(content: Any, file: Any) -> None:
            if self.is_full:
                raise OSError(28, "No space left on device")
            save(content, file)

        monkeypatch.setattr(torch, "save", saves)

    def fills(self, trainer: Trainer) -> None:
        trainer.strategy.checkpoint_io.wait()
        self.is_full = True

    def empties(self, trainer: Trainer) -> None:
        trainer.strategy.checkpoint_io.wait()
        self.is_full = False


def test_training_goes_on_where_a_checkpoint_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    disk = FullDisk(monkeypatch)
    with caplog.at_level(logging.WARNING, logger="ddpm"):
        fit(
            tmp_path,
            6,
            AfterStep(2, disk.fills),
            AfterStep(5, disk.empties),
            Checkpoints(every_n_steps=1, keep=2),
        )
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/checkpoints/{at_step(step)} could not be written: [Errno 28] No space left on device; "
        "training goes on"
        for step in (2, 3, 4)
    ]
    assert steps(tmp_path) == [5, 6]


def test_a_run_that_cannot_be_saved_in_the_end_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = FullDisk(monkeypatch)
    with pytest.raises(TrainingError, match=r"step_00000004\.ckpt could not be written: .* No space left"):
        fit(tmp_path, 4, AfterStep(2, disk.fills), Checkpoints(every_n_steps=1))
    assert steps(tmp_path) == [1]
    assert find(tmp_path)[1]["global_step"] == 1


def test_a_last_write_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = FullDisk(monkeypatch)

    class Empties(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            disk.empties(trainer)

    fit(tmp_path, 2, AfterStep(2, disk.fills), Checkpoints(every_n_steps=1), Empties())
    assert steps(tmp_path) == [1, 2]
    assert find(tmp_path)[0].name == "last.ckpt"


def test_an_average_that_is_not_finite_ends_the_run_and_spoils_nothing(tmp_path: Path):
    def spoil(trainer: Trainer) -> None:
        average = trainer.lightning_module.ema.state_dict()["parameters"]
        next(iter(average.values())).view(-1)[0] = float("nan")

    def wait(trainer: Trainer) -> None:
        trainer.strategy.checkpoint_io.wait()

    # at the step after it is known, not at the next that is saved
    told = [AfterStep(4, spoil), AfterStep(5, wait), AfterStep(6, lambda _: pytest.fail("it went on"))]
    with pytest.raises(TrainingError, match=r"ema\.parameters\..* holds NaN or infinity, so step_00000004"):
        fit(tmp_path, 9, *told, Checkpoints(every_n_steps=2))
    assert steps(tmp_path) == [2]
    assert find(tmp_path)[1]["global_step"] == 2


def test_a_state_that_no_checkpoint_can_hold_is_told_in_the_first_step(tmp_path: Path):
    class Keeps(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"place": tmp_path}

    with pytest.raises(TrainingError, match=r"the state of Keeps\.place is a PosixPath"):
        fit(tmp_path, 3, Keeps(), Checkpoints(every_n_steps=100))
    assert not (tmp_path / "checkpoints").exists()


def test_the_best_of_lightning_is_saved_and_removed_in_order(tmp_path: Path):
    best = ModelCheckpoint(
        tmp_path / "best", filename="{step}", monitor="train/loss", save_top_k=1, every_n_train_steps=1
    )

    class Better(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.callback_metrics["train/loss"] = torch.tensor(-float(trainer.global_step))

    fit(tmp_path, 5, Better(), best)
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step=5.ckpt"]
    assert load(tmp_path / "best/step=5.ckpt")["global_step"] == 5
