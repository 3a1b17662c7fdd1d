"""Runs that stay where somebody wants to disturb them, and say that they are there.

`PAUSE_AT` names the phase, `PAUSE_FILES` a directory where each rank that is there leaves a file of its
number, `PAUSE_SECONDS` how long one step of the phase takes. Without them nothing is changed.
"""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.diffusion.samplers import DDIM


def pause(phase: str) -> None:
    """Where this phase is asked for: say that this rank is in it, and make it longer."""
    if os.environ.get("PAUSE_AT") != phase:
        return
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    (Path(os.environ["PAUSE_FILES"]) / rank).touch()
    if phase == os.environ.get("PAUSE_RAISES") and rank == os.environ["PAUSE_RANK"]:
        while not Path(os.environ["PAUSE_FILES"], "raise").exists():
            time.sleep(0.05)
        raise RuntimeError("on purpose")
    time.sleep(float(os.environ["PAUSE_SECONDS"]))


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


class WaitsBeside(Callback):
    """The rank that waits for a grid says that it is there, at the step whose grid is next."""

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        if trainer.global_rank and trainer.global_step == 10 and os.environ.get("PAUSE_AT") == "grid":
            (Path(os.environ["PAUSE_FILES"]) / str(trainer.global_rank)).touch()
