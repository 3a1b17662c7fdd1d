"""A time limit ends this start of a run, and says so; the next start has its whole time."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import first_everyday
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, Timer
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.time_limit import TimeLimit, is_over
from ddpm.training.checkpoints import find
from ddpm.training.ending import why_it_ended


def fit(directory: Path, max_steps: int, *callbacks: Callback, ckpt: Path | None = None) -> Trainer:
    trainer = make_trainer(directory, max_steps, *callbacks)
    trainer.val_check_interval = 1
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return trainer


class Slow(Callback):
    def on_train_batch_end(self, *_: Any) -> None:
        time.sleep(0.1)


class Stops(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 2


@pytest.mark.e2e
def test_each_start_has_its_whole_time(tmp_path: Path):
    first = TimeLimit("00:00:00:01")
    trainer = fit(tmp_path / "first", 1000, first, Slow(), Checkpoints(every_n_steps=1000))
    assert is_over(first)
    assert 0 < trainer.global_step <= 10
    assert why_it_ended(trainer) == "trainer.max_time is over, 0:00:01"
    done = trainer.global_step
    second = TimeLimit({"hours": 1})
    trainer = fit(tmp_path, done + 2, second, Slow(), ckpt=tmp_path / "first/checkpoints/last.ckpt")
    assert not is_over(second)
    assert trainer.global_step == done + 2
    assert why_it_ended(trainer) == f"trainer.max_steps={done + 2} is reached"
    left: list[float | None] = []
    third = TimeLimit({"seconds": 1000})
    third.load_state_dict({"time_elapsed": {"train": 999.0}})  # as Lightning's own would have it
    begins = LambdaCallback(on_train_start=lambda *_: left.append(third.time_remaining()))
    fit(tmp_path, done + 1, third, begins, ckpt=tmp_path / "first/checkpoints/last.ckpt")
    assert left[0] is not None
    assert left[0] > 900


@pytest.mark.parametrize("accumulation", first_everyday([3, 1]))
def test_a_run_that_goes_on_behind_a_time_limit_is_the_uninterrupted_one(tmp_path: Path, accumulation: int):
    """Lightning validates where it ends; what watches the validation must not have seen that."""

    def run(max_steps: int, *callbacks: Callback, **settings: Any) -> dict[str, Any]:
        callbacks = (Checkpoints(every_n_steps=100), EarlyStopping("val/loss", patience=100), *callbacks)
        trainer = make_trainer(tmp_path, max_steps, *callbacks, accumulation=accumulation)
        trainer.val_check_interval = 4 * accumulation
        module = make_module()
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=36, seed=0), **settings)
        return find(tmp_path)[1]

    whole = run(9)
    shutil.rmtree(tmp_path / "checkpoints")
    ended = run(9, TimeLimit({"seconds": 1}), Wait(step=3, accumulation=accumulation))
    assert ended["global_step"] == 3
    rest = run(9, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, rest["state_dict"][name])
    (ours,), (theirs,) = (
        [state for name, state in saved["callbacks"].items() if name.startswith("EarlyStopping")]
        for saved in (whole, rest)
    )
    assert ours == theirs


class Wait(Callback):
    """Waits longer than a second in the first micro-batch of a step."""

    def __init__(self, step: int, accumulation: int):
        self.batch = (step - 1) * accumulation

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            time.sleep(1.1)


def test_a_timer_of_lightnings_gives_its_reason(tmp_path: Path):
    trainer = fit(tmp_path, 1000, Timer({"seconds": 0}))
    assert trainer.global_step < 1000
    assert (why_it_ended(trainer) or "").startswith("Timer: its time is over, earlier starts included")


def test_early_stopping_gives_its_reason(tmp_path: Path):
    stopping = EarlyStopping("val/loss", patience=1, min_delta=1e9)
    trainer = fit(tmp_path, 100, stopping)
    why = why_it_ended(trainer) or ""
    assert why.startswith("EarlyStopping: Monitored metric val/loss did not improve")
    assert trainer.global_step < 100


def test_whoever_asks(tmp_path: Path):
    assert why_it_ended(fit(tmp_path, 100, Stops())) == "a callback asked for it (trainer.should_stop)"


def test_a_trainer_that_did_not_run():
    assert why_it_ended(Trainer(accelerator="cpu", max_steps=5, logger=False)) is None


def test_a_time_that_is_none_is_refused():
    with pytest.raises(Exception, match="DD:HH:MM:SS"):
        TimeLimit("5 s")


class Breaks(Callback):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        raise RuntimeError("broken off")


def test_a_return_to_a_checkpoint_does_not_begin_the_time_anew(tmp_path: Path):
    limit = TimeLimit({"hours": 1})
    with pytest.raises(RuntimeError, match="broken off"):
        fit(tmp_path, 2, limit, Breaks())
    began = limit.start_time()
    fit(tmp_path, 1, limit)
    assert limit.start_time() == began
    fit(tmp_path, 1, limit)
    assert limit.start_time() != began


def test_what_ended_a_training_before_its_time_stays_the_reason(tmp_path: Path):
    """The last grid may take longer than was left."""
    limit = TimeLimit({"seconds": 1})

    class Lingers(Callback):
        def on_train_end(self, *_: Any) -> None:
            time.sleep(1.1)

    trainer = fit(tmp_path, 100, EarlyStopping("val/loss", patience=1, min_delta=1e9), Lingers(), limit)
    if not limit.has_ended:  # on a machine that is fast enough
        assert (why_it_ended(trainer) or "").startswith("EarlyStopping")
