"""Whoever logs, and to whichever logger: a value stands at the number of completed optimizer steps."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import first_everyday, wandb_records
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ThroughputMonitor,
)
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from models import make_module
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, TensorDataset

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.checkpoints import AtomicCheckpointIO
from ddpm.training.loggers import MetricsCSV, WandbLogger, at_completed_steps, log_picture

Values = dict[str, dict[int, float]]
"""By name and step."""


class Memory(Logger):
    """A stranger's logger: keeps what it is given, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[int | None, dict[str, float]]] = []

    name = version = "memory"

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.given.append((step, dict(metrics)))

    def steps_of(self, name: str) -> list[int | None]:
        return [step for step, metrics in self.given if name in metrics]


class Stranger(Callback):
    """Logs its own counter of steps in each of the ways that there are, and a picture."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        module.log("mine/before", float(trainer.global_step + 1))  # written after the step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        module.log("mine/after", float(trainer.global_step))
        for logger in trainer.loggers:
            logger.log_metrics({"mine/by_hand": float(trainer.global_step)})
            logger.log_metrics({"mine/told": float(trainer.global_step)}, step=trainer.global_step)
            if isinstance(logger, WandbLogger):
                logger.experiment.log({"mine/own": float(trainer.global_step)}, commit=False)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        picture = np.full((8, 8, 3), trainer.global_step, np.uint8)
        for logger in trainer.loggers:
            log_picture(logger, "mine/picture", picture, step=trainer.global_step)


class PerBatchOfValidation(Callback):
    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        module.log("mine/of_batch", float(trainer.global_step), on_step=True, on_epoch=True, batch_size=1)


def fit(
    directory: Path,
    loggers: list[Any],
    *callbacks: Callback,
    max_steps: int = 8,
    accumulation: int = 1,
    every: int = 1,
    ckpt: Path | None = None,
) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=1.0,
        log_every_n_steps=every,
        default_root_dir=directory,
        callbacks=[CompletedSteps(), TrainingRows(), *callbacks],
        plugins=[AtomicCheckpointIO()],
        logger=loggers,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=2 * accumulation,
    )
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0), ckpt_path=ckpt)
    return trainer


def of_csv(path: Path) -> Values:
    found: Values = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name != "step":
                    found.setdefault(name, {})[int(row["step"])] = float(value)
    return found


def of_tensorboard(directory: Path) -> Values:
    events = EventAccumulator(str(directory))
    events.Reload()
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in events.Tags()["scalars"]}


def of_wandb(directory: Path) -> Values:
    found: Values = {}
    for row in (record["item"] for record in wandb_records(directory, "history")):
        for name, value in row.items():
            if not name.startswith("_") and isinstance(value, int | float):
                found.setdefault(name, {})[row["trainer/global_step"]] = value
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 8 steps with every logger at once and callbacks of everyone's."""
    directory = tmp_path_factory.mktemp("run")
    loggers = [
        WandbLogger(save_dir=directory),
        TensorBoardLogger(directory, name="tensorboard", version=""),
        CSVLogger(directory, name="csv", version=""),
        MetricsCSV(directory / "metrics.csv"),
    ]
    best = ModelCheckpoint(
        directory / "checkpoints", filename="best", monitor="val/loss",
        enable_version_counter=False, auto_insert_metric_name=False,
    )  # fmt: skip
    stopping = EarlyStopping("val/loss", patience=100)
    fit(directory, loggers, Stranger(), LearningRateMonitor(), best, stopping)
    loggers[0].finish(0)
    assert stopping.best_score == min(of_csv(directory / "metrics.csv")["val/loss"].values())
    return directory


READERS = {
    "wandb": of_wandb,
    "tensorboard": lambda directory: of_tensorboard(directory / "tensorboard"),
    "csv": lambda directory: of_csv(directory / "csv" / "metrics.csv"),
    "metrics.csv": lambda directory: of_csv(directory / "metrics.csv"),
}


@pytest.mark.parametrize("kind", READERS)
def test_every_value_stands_at_its_step_in_every_logger_and_none_is_lost(run: Path, kind: str):
    found = READERS[kind](run)
    for name in ("mine/before", "mine/after", "mine/by_hand", "mine/told"):
        assert found[name] == {step: step for step in range(1, 9)}, name
    assert list(found["train/loss"]) == list(range(1, 9))
    assert list(found["val/loss"]) == [2, 4, 6, 8]
    assert list(found["lr-Adam"]) == list(range(8))  # the rate after so many steps, noted before the next
    for step in range(8):
        assert found["lr-Adam"][step] == pytest.approx(found["train/learning_rate"][step + 1])
    assert "epoch" not in found
    if kind == "wandb":
        assert found["mine/own"] == found["mine/after"]


def test_all_loggers_hold_the_same(run: Path):
    found = {kind: read(run) for kind, read in READERS.items()}
    own = found.pop("metrics.csv")
    for kind, values in found.items():
        for name, series in own.items():
            assert values[name] == pytest.approx(series, rel=1e-6, nan_ok=True), (kind, name)


def test_metrics_csv_has_a_row_a_step(run: Path):
    with (run / "metrics.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == list(range(9))  # 0 holds the rate that the first step is made with


def test_pictures_arrive_byte_for_byte(run: Path):
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    shown = events.Images("mine/picture")
    assert [event.step for event in shown] == [2, 4, 6, 8]
    assert [np.unique(Image.open(io.BytesIO(e.encoded_image_string))).tolist() for e in shown] == [
        [step] for step in (2, 4, 6, 8)
    ]
    rows = [record["item"] for record in wandb_records(run, "history")]
    kept = {row["trainer/global_step"]: row for row in rows if "mine/picture.filenames" in row}
    assert list(kept) == [2, 4, 6, 8]
    (files,) = run.glob("wandb/offline-run-*/files")
    for step, row in kept.items():
        (name,) = row["mine/picture.filenames"]
        assert np.unique(Image.open(files / name).convert("RGB")).tolist() == [step]


def test_the_best_checkpoint_is_there(run: Path):
    losses = of_csv(run / "metrics.csv")["val/loss"]
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == min(losses, key=losses.__getitem__)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["best.ckpt"]


def test_micro_batches_are_no_steps(tmp_path: Path):
    memory = Memory()
    fit(tmp_path, [memory], Stranger(), LearningRateMonitor(), max_steps=3, accumulation=4)
    assert memory.steps_of("mine/after") == [1, 2, 3]
    assert memory.steps_of("train/loss") == [1, 2, 3]
    assert set(memory.steps_of("lr-Adam")) == {0, 1, 2}
    assert set(memory.steps_of("mine/by_hand")) == {0, 1, 2, 3}
    assert not any("epoch" in metrics for _, metrics in memory.given)


@pytest.mark.parametrize("saved_at", first_everyday(["the end", "a step"]))
def test_a_continued_run_goes_on_at_its_steps(tmp_path: Path, saved_at: str):
    first = Checkpoints(every_n_steps=4 if saved_at == "a step" else 100)
    fit(tmp_path / "first", [], first, max_steps=4)
    memory = Memory()
    ckpt = tmp_path / "first/checkpoints/last.ckpt"
    fit(tmp_path, [memory], Stranger(), LearningRateMonitor(), max_steps=8, every=2, ckpt=ckpt)
    assert memory.steps_of("train/loss") == [6, 8]
    assert memory.steps_of("mine/after") == [6, 8]
    assert memory.steps_of("mine/before") == [6, 8]
    assert memory.steps_of("mine/told") == [5, 6, 7, 8]
    assert memory.steps_of("lr-Adam") == [5, 7]


def test_what_is_logged_for_each_batch_of_the_validation_stands_at_the_step(tmp_path: Path):
    memory = Memory()
    fit(tmp_path, [memory], PerBatchOfValidation(), max_steps=4)
    (name,) = {n for _, metrics in memory.given for n in metrics if n.startswith("mine/of_batch_step")}
    for step, metrics in memory.given:
        for each in (name, "mine/of_batch_epoch"):
            assert metrics.get(each, step) == step
    assert set(memory.steps_of("mine/of_batch_epoch")) == {2, 4}


def test_other_monitors_of_lightning(tmp_path: Path):
    memory = Memory()
    monitors = [DeviceStatsMonitor(cpu_stats=True), ThroughputMonitor(lambda batch: len(batch.x_0))]
    fit(tmp_path, [memory], *monitors, max_steps=4)
    names = {name for _, metrics in memory.given for name in metrics}
    (cpu,) = {name for name in names if name.endswith("on_train_batch_end/cpu_percent")}
    assert memory.steps_of(cpu) == [1, 2, 3, 4]
    assert memory.steps_of("train/time") == [1, 2, 3, 4]
    assert set(memory.steps_of("validate/time")) == {2, 4}


class Regression(LightningModule):
    """A stranger's module with a loader of its own, which ends between two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = self.layer(batch[0]).square().mean()
        self.log("mine/loss", loss)
        self.log("mine/mean", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Steps(EveryNSteps):
    def __init__(self, every_n_steps: int = 1):
        super().__init__(every_n_steps)
        self.seen: list[int] = []

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self.seen.append(step)


def test_the_short_step_at_the_end_of_a_loader_is_a_step(tmp_path: Path):
    """5 batches, 2 a step: Lightning makes 3 steps an epoch."""
    memory, each, third = Memory(), Steps(), Steps(3)
    trainer = Trainer(
        accelerator="cpu", max_epochs=3, accumulate_grad_batches=2, logger=[memory], log_every_n_steps=1,
        callbacks=[CompletedSteps(), each, third], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(Regression(), DataLoader(TensorDataset(torch.ones(5, 1)), batch_size=1))
    assert each.seen == list(range(1, 10))
    assert third.seen == [3, 6, 9]
    assert memory.steps_of("mine/loss") == list(range(1, 10))
    assert memory.steps_of("mine/mean") == [3, 6, 9]


def test_outside_of_fitting_and_by_a_persons_word_steps_stay():
    trainer, memory = Trainer(accelerator="cpu", logger=False), Memory()
    at_completed_steps(memory, trainer)
    at_completed_steps(memory, trainer)
    memory.log_metrics({"a": 1.0, "epoch": 0.0}, step=None)
    memory.log_metrics({"a": 2.0}, step=1234)
    assert memory.given == [(None, {"a": 1.0, "epoch": 0.0}), (1234, {"a": 2.0})]
