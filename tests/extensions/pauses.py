"""Runs that stay where somebody wants to disturb them, and say that they are there.

`PAUSE_AT` names the phase, `PAUSE_FILES` a directory where each rank that is there leaves a file of its
number, `PAUSE_SECONDS` how long one step of the phase takes, `PAUSE_RAISES` a rank that fails there when a
file `raise` is there, too. Without them nothing is changed.
"""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.diffusion.samplers import DDIM
from ddpm.training.callbacks.samples import SampleGrids


def pause(phase: str) -> None:
    """Where this phase is asked for: say that this rank is in it, and make it longer."""
    if os.environ.get("PAUSE_AT") != phase:
        return
    arrive()
    time.sleep(float(os.environ["PAUSE_SECONDS"]))


def arrive() -> None:
    """Say that this rank is there; fail there, where it is to, once it is told so."""
    files, rank = Path(os.environ["PAUSE_FILES"]), os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    (files / rank).touch()
    if rank == os.environ.get("PAUSE_RAISES"):
        while not (files / "raise").exists():
            time.sleep(0.05)
        raise RuntimeError("on purpose")


class Pauses(Callback):
    """In training and in validation."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        if trainer.global_step > 2:
            pause("training")

    def on_validation_batch_start(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        pause("validation")


class SlowGrids(DDIM):
    """In a grid, of which the leader draws each step, and beside which the others only wait."""

    def __call__(self, *arguments: Any, on_step: Any = None, **settings: Any) -> Tensor:
        def each(*state: Any) -> None:
            pause("grid")
            if on_step is not None:
                on_step(*state)

        return super().__call__(*arguments, on_step=each, **settings)


class Beside(Callback):
    """The rank that will wait for a grid: it is there when all else of its step is done."""

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        others = [other for other in trainer.callbacks if other is not self]
        grids = next(i for i, other in enumerate(others) if isinstance(other, SampleGrids))
        trainer.callbacks = [*others[:grids], self, *others[grids:]]

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        if trainer.global_rank and trainer.global_step == 10 and os.environ.get("PAUSE_AT") == "grid":
            arrive()
