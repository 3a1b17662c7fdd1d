"""Whenever a run is killed, it goes on as if nothing had been: every file is that of an undisturbed run."""

import csv
import itertools
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import first_everyday
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import LossSecondMoment, Uniform
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.callbacks.continuation import Continuation
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.checkpoints import AtomicCheckpointIO, numbered
from ddpm.training.ema import EMA
from ddpm.training.loggers import MetricsCSV
from ddpm.training.module import DDPM

LOG, VALIDATE, DRAW = 3, 4, 5
MOMENTS = ("saved", "drawing", "behind", "validating", "validated", "next", "best")
"""Of a step: behind its checkpoint, in its grid, behind its rows and grid, in its validation, behind what
watches the validation, before the next step; and there, going on from the best checkpoint if that is of this
step.
"""


class KilledError(Exception):
    """Nothing but what is on disk survives it."""


class Kill(Callback):
    """Ends the run at a moment of a step, or before the next one where the step does not come to it."""

    def __init__(self, moment: str, step: int):
        self.moment, self.step = moment, step

    def at(self, trainer: Trainer, *moments: str) -> None:
        if self.moment in moments and trainer.global_step == self.step:
            raise KilledError

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            raise KilledError


class First(Kill):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.at(trainer, "saved")


class Last(Kill):
    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if (trainer.fit_loop.epoch_loop.batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.at(trainer, "behind")

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.at(trainer, "validating")

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        self.at(trainer, "validated")


class Drawing(DDIM):
    """A sampler during which the run is killed."""

    kill: Kill
    trainer: Trainer

    def __call__(self, *arguments: Any, **settings: Any) -> Tensor:
        self.kill.at(self.trainer, "drawing")
        return super().__call__(*arguments, **settings)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.SiLU(), nn.Dropout(0.2), nn.Conv2d(3, 1, 1)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.parts(x_t)


def start(directory: Path, max_steps: int, kill: tuple[str, int], case: dict[str, Any]) -> bool:
    """Start or continue the run in a directory; whether it came to its end."""
    moment, step = kill
    own, fast = Drawing(2), Drawing(1)
    directory.mkdir(exist_ok=True)
    torch.manual_seed(0)
    lr_schedule = None
    if case.get("plateau"):
        lr_schedule = partial(
            torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.2, factor=0.5
        )
    module = DDPM(
        Small(),
        linear(25),
        image_shape=(1, 8, 8),
        timesteps=LossSecondMoment(history=1) if case.get("importance") else Uniform(),
        optimizer=partial(torch.optim.Adam, lr=1e-2),
        lr_schedule=lr_schedule,
        ema=partial(EMA, decay=0.9),
        sampler=own,
        config={},
        data={},
    )
    last = Last(moment, step)
    csv_logger = MetricsCSV(directory / "metrics.csv")
    accumulation = case.get("accumulation", 1)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=1.0,
        log_every_n_steps=LOG,
        default_root_dir=directory,
        callbacks=[
            CompletedSteps(),
            Continuation(),
            Checkpoints(every_n_steps=case["save"], keep=None),
            First(moment, step),
            TrainingRows(),
            LearningRateMonitor(),
            SampleGrids(fast, every_n_steps=DRAW, n=1, final=case.get("final", False)),
            EarlyStopping(
                "val/loss", patience=case.get("patience", 100), min_delta=case.get("min_delta", 0.0)
            ),
            last,
            ModelCheckpoint(
                directory / "checkpoints", "best", monitor="val/loss", enable_version_counter=False
            ),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=[csv_logger],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=VALIDATE * accumulation,
        limit_val_batches=2,
    )
    for sampler in (own, fast):
        sampler.kill, sampler.trainer = last, trainer
    saved = numbered(directory / "checkpoints")
    newest = max(saved, default=0)
    ckpt = saved.get(newest)
    best = directory / "checkpoints" / "best.ckpt"
    if moment == "best" and best.exists() and step_of(best) == newest:
        ckpt = best
    if ckpt is not None and (directory / "metrics.csv").exists():
        csv_logger.continue_from(directory / "metrics.csv", newest)
    try:
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=16, seed=0), ckpt_path=ckpt)
    except KilledError:
        return False
    return True


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def step_of(path: Path) -> int:
    return load(path)["global_step"]


def kills(max_steps: int, offset: int, stride: int = 1) -> Iterator[tuple[str, int]]:
    """One a step, each at another moment."""
    for step in range(stride, max_steps + 1, stride):
        yield MOMENTS[(step + offset) % len(MOMENTS)], step


def rows(path: Path) -> list[list[str]]:
    """All of a file's cells but those of perf."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    shown = [i for i, name in enumerate(lines[0]) if not name.startswith("perf/")]
    return [lines[0], *([line[i] for i in shown] for line in lines[1:])]


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (directory / "samples").iterdir()}


def assert_same(a: Any, b: Any, name: str = "") -> None:
    if isinstance(a, Tensor):
        assert torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f"{name}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), name
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{name}.{i}")
    else:
        assert a == b or (a != a and b != b), name


COMPARED = ("global_step", "state_dict", "ema", "timesteps", "optimizer_states", "lr_schedulers")

EARLY = {"max_steps": 40, "patience": 2, "min_delta": 0.2, "final": True}

CASES: dict[str, dict[str, Any]] = {
    "plain": {"save": 1, "max_steps": 20},
    "accumulated, importance": {"save": 1, "max_steps": 12, "accumulation": 2, "importance": True},
    "plateau, last grid": {"save": 1, "max_steps": 13, "plateau": True, "final": True},
    "seldom saved": {"save": 7, "max_steps": 23, "plateau": True, "accumulation": 2},
    "stopped early": {"save": 1, **EARLY},
    "stopped early, seldom saved": {"save": 7, **EARLY},
}

EVERYDAY = {("accumulated, importance", 0), ("plateau, last grid", 5)}

SLOW = {(name, offset) for offset in range(len(MOMENTS)) for name in [list(CASES)[offset % len(CASES)]]}
"""Each moment in one of the cases."""


def when(case: tuple[str, int]) -> Any:
    """The marks of a case."""
    if case in EVERYDAY:
        return ()
    return pytest.mark.slow if case in SLOW else pytest.mark.long


@pytest.mark.parametrize(
    ("name", "offset"),
    [pytest.param(*each, marks=when(each)) for each in itertools.product(CASES, range(len(MOMENTS)))],
)
def test_a_run_that_is_killed_at_every_step(tmp_path: Path, name: str, offset: int):
    case = CASES[name]
    max_steps = case["max_steps"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, max_steps, ("", -1), case)
    killing = kills(max_steps, offset)
    while not start(killed, max_steps, next(killing, ("", -1)), case):
        pass
    end = max(numbered(whole / "checkpoints"))
    assert (end == max_steps) == ("early" not in name)
    assert set(numbered(killed / "checkpoints")) == set(numbered(whole / "checkpoints"))
    assert rows(killed / "metrics.csv") == rows(whole / "metrics.csv")
    assert files(killed) == files(whole)
    for file in (f"step_{end:08d}.ckpt", "best.ckpt"):
        ours, theirs = (load(directory / "checkpoints" / file) for directory in (killed, whole))
        for part in COMPARED:
            assert_same(ours[part], theirs[part], f"{file}: {part}")
        if file == "best.ckpt":
            for part in ("sums", "validated_step", "plateau_step", "learning_rate"):
                assert_same(ours["training"][part], theirs["training"][part], f"{file}: {part}")


class Once(Callback):
    """Counts what happens at each step."""

    def __init__(self) -> None:
        self.validations: list[int] = []
        self.epochs: list[int] = []

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.validations.append(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.epochs.append(trainer.global_step)


SCRIPTS: dict[str, dict[str, Any]] = {
    "a short last step": {"max_epochs": 2, "accumulate_grad_batches": 4, "log_every_n_steps": 1},
    "epochs": {"max_epochs": 3, "log_every_n_steps": 4},
    "every other epoch": {"max_epochs": 3, "check_val_every_n_epoch": 2},
    "within epochs": {"max_epochs": 2, "val_check_interval": 4, "log_every_n_steps": 4},
    "across epochs": {"max_steps": 11, "val_check_interval": 4, "check_val_every_n_epoch": None},
    "steps that fill an epoch": {"max_steps": 12, "log_every_n_steps": 5},
    "never": {"max_steps": 5, "val_check_interval": 100, "check_val_every_n_epoch": None},
}


@pytest.mark.parametrize("name", first_everyday(list(SCRIPTS)))
def test_a_script_of_ones_own_goes_on_from_any_checkpoint(tmp_path: Path, name: str):
    """Lightning's own checkpoints, after each step, each validation and the end; six batches an epoch, all
    alike, as its loader begins anew.
    """

    def fit(directory: Path, *callbacks: Callback, **settings: Any) -> tuple[DDPM, Once]:
        directory.mkdir(exist_ok=True)
        torch.manual_seed(0)
        plateau = partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=0.2, factor=0.5)
        module = DDPM(Small(), linear(25), image_shape=(1, 8, 8), lr_schedule=plateau, sampler=DDIM(1))
        once = Once()
        logger = MetricsCSV(directory / "metrics.csv")
        if "ckpt_path" in settings:
            shutil.copy(tmp_path / "whole" / "metrics.csv", directory)
            logger.continue_from(logger.path, step_of(settings["ckpt_path"]))
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            default_root_dir=directory,
            callbacks=[once, EarlyStopping("val/loss", patience=100), *callbacks],
            logger=logger,
            enable_checkpointing=bool(callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            **SCRIPTS[name],
        )
        images = torch.linspace(-1, 1, 64).view(1, 1, 8, 8).repeat(48, 1, 1, 1)
        loader = DataLoader(TensorDataset(images), batch_size=8)
        trainer.fit(module, loader, loader, **settings)
        if callbacks:
            trainer.save_checkpoint(tmp_path / "ended.ckpt")
        return module, once

    kept = {"save_top_k": -1, "enable_version_counter": False}
    whole, once = fit(
        tmp_path / "whole",
        ModelCheckpoint(tmp_path, "step_{step}", every_n_train_steps=1, **kept),
        ModelCheckpoint(
            tmp_path, "validated_{step}", every_n_epochs=1, save_on_train_epoch_end=False, **kept
        ),
    )
    assert len(set(once.validations)) == len(once.validations)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) > 4
    for ckpt in checkpoints:
        step = step_of(ckpt)
        rest, more = fit(tmp_path / ckpt.stem, ckpt_path=ckpt)
        lacks_validation, lacks_end = ckpt.stem.startswith("step"), ckpt.stem != "ended"
        for ours, theirs, lacks in (
            (more.validations, once.validations, lacks_validation),
            (more.epochs, once.epochs, lacks_end),
        ):
            assert ours == [number for number in theirs if number >= step + (not lacks)], ckpt
        assert_same(rest.state_dict(), whole.state_dict(), str(ckpt))
        assert_same(rest.ema.state_dict(), whole.ema.state_dict(), str(ckpt))
        assert rows(tmp_path / ckpt.stem / "metrics.csv") == rows(tmp_path / "whole" / "metrics.csv"), ckpt
