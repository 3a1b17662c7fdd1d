"""A step is counted when it is made, however many batches it took; ten lines of a stranger draw a picture."""

import inspect
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import wandb_records
from lightning.pytorch import Callback
from models import make_module, make_trainer
from PIL import Image

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.loggers import WandbLogger, log_picture


class Seen(EveryNSteps):
    def __init__(self, every_n_steps: int = 1):
        super().__init__(every_n_steps)
        self.seen: list[int] = []

    def on_step(self, trainer: Any, module: Any, step: int) -> None:
        assert step == trainer.global_step
        self.seen.append(step)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_steps_are_counted_and_not_batches(tmp_path: Path, accumulation: int):
    each, third = Seen(), Seen(3)
    trainer = make_trainer(tmp_path, 7, each, third, accumulation=accumulation)
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    assert each.seen == [1, 2, 3, 4, 5, 6, 7]
    assert third.seen == [3, 6]


def test_several_steps_with_one_batch_do_not_step_over_the_number():
    """As with two optimizers, which Lightning counts both."""
    third = Seen(3)
    trainer: Any = SimpleNamespace(global_step=0)
    for _ in range(6):
        third.on_train_batch_start(trainer, None, None, 0)
        trainer.global_step += 2
        third.on_train_batch_end(trainer, None, None, None, 0)
    assert third.seen == [4, 6, 10, 12]


def test_below_one_is_refused():
    with pytest.raises(ValueError, match="every_n_steps=0 must be at least 1"):
        Seen(0)


@pytest.mark.e2e
def test_the_example_in_the_docstring_draws(tmp_path: Path):
    """Ten lines of a stranger's, taken from where they are documented."""
    lines = inspect.cleandoc(EveryNSteps.__doc__ or "").splitlines()
    first = lines.index("    class Mean(EveryNSteps):")
    code = textwrap.dedent("\n".join(lines[first : lines.index("", first)]))
    names: dict[str, Any] = {"EveryNSteps": EveryNSteps, "np": np, "log_picture": log_picture}
    exec(code, names)
    drawing: Callback = names["Mean"](every_n_steps=2)
    trainer = make_trainer(tmp_path, 5, drawing)
    trainer.loggers = [logger := WandbLogger(mode="offline", save_dir=tmp_path)]
    trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    logger.finish(0)
    rows = [record["item"] for record in wandb_records(tmp_path, "history")]
    assert [row["trainer/global_step"] for row in rows if "mine/mean.filenames" in row] == [2, 4]
    pictures = list(tmp_path.glob("wandb/offline-run-*/files/media/images/mine/mean_*.png"))
    assert [Image.open(path).size for path in pictures] == [(8, 8)] * 2


def test_one_that_does_nothing_cannot_be_made():
    with pytest.raises(TypeError, match="on_step"):
        EveryNSteps(1)
