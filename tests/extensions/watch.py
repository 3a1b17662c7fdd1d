"""Callbacks that write down what a run did, for tests that look at it from outside."""

import json
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Asks(Callback):
    """Asks of loggers what those of Lightning have."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        for logger in trainer.loggers:
            getattr(logger.experiment, "log", print)({"mine/x": 1.0})
        if len(trainer.loggers) > 1:
            trainer.logger.log_image("mine/image", [], step=0)
        (Path(trainer.log_dir or ".") / "asked.txt").write_text("yes")


class WaitsForTheOther(Callback):
    """Ends the training with an error where the other of a sweep's two jobs has not begun within a minute."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        own = Path(trainer.default_root_dir)
        (own / "begun.txt").write_text("yes")
        until = time.monotonic() + 60
        while not all((own.parent / job / "begun.txt").exists() for job in ("0", "1")):
            if time.monotonic() > until:
                raise RuntimeError("alone")
            time.sleep(0.05)


class Seen(Callback):
    """Writes the images of every training batch, and the number of validation batches, to `seen.json`.

    Args:
        file: where to.
    """

    def __init__(self, file: str):
        self.file = Path(file)
        self.train: list[list[float]] = []
        self.validation: list[int] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, i: int) -> None:
        self.train.append(sorted(round(float(image.sum()), 4) for image in batch.x_0))

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        self.validation.append(trainer.global_step)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.file.write_text(json.dumps({"train": self.train, "validation": self.validation}))
