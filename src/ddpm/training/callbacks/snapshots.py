"""Snapshots of averages as a run goes."""

import logging
import math
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from ddpm.runtime.progress import Pause
from ddpm.training import snapshots
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.every_n_steps import EveryNSteps

log = logging.getLogger(__name__)

NUMBER = 32
"""Snapshots of a run whose interval nobody has chosen."""

WITHOUT_END = 10_000
"""Steps between them where the run has no end."""


class Snapshots(EveryNSteps):
    """Keeps the averages of `ddpm.training.power_ema.PowerEMA` at steps of the run, in `averages/`, whole
    files. A run that writes no checkpoints keeps none: nobody could build a network for them.

    One that cannot be written is a warning.

    Args:
        every_n_steps: optimizer steps from one to the next; None for a 32nd of the run.
    """

    def __init__(self, every_n_steps: int | None = None):
        super().__init__(every_n_steps or 1)
        self._chosen = every_n_steps
        self._is_on = False

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        trainers: Any = trainer
        self._is_on = any(isinstance(one, Checkpoint | Checkpoints) for one in trainers.callbacks)
        steps = trainer.max_steps
        self.every_n_steps = self._chosen or (math.ceil(steps / NUMBER) if steps > 0 else WITHOUT_END)
        if not trainer.is_global_zero:
            return
        snapshots.drop(_directory(trainer), after=trainer.global_step)
        if self._is_on:
            size = 4 * pl_module.num_parameters * len(pl_module.ema.averages)
            number = steps // self.every_n_steps
            of_all = f": {number} by step {steps:,}, {_bytes(number * size)}" if steps > 0 else ""
            log.info(
                "averages       snapshots of %s every %s steps in %s/%s",
                _bytes(size), f"{self.every_n_steps:,}", snapshots.DIRECTORY, of_all,
            )  # fmt: skip

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        """None: it takes next to no time."""

    def on_step(self, trainer: Trainer, module: Any, step: int) -> None:
        path = snapshots.path_of(_directory(trainer), step)
        if not self._is_on or trainer.strategy.broadcast(path.exists()):  # of a start that was killed
            return
        module.guard.settle(module)
        try:
            snapshots.write(module.ema, path, leads=trainer.is_global_zero)
        except (OSError, ValueError, RuntimeError) as error:
            log.warning("%s could not be written: %s; training goes on", path, error)


def _directory(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _bytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
