"""Ending a run whose directory somebody else has taken over, before it writes there."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.ending import TrainingError


class SoleWriter(Callback):
    """Looks, before anything of a step is written, whether the run still has its directory to itself.

    A process that stood still for minutes (a machine that slept, a file system that was away) may have been
    taken for dead by another machine, which went on with the run.

    Args:
        is_lost: whether somebody else has the directory now; asked after each step, so it must cost nothing.
    """

    def __init__(self, is_lost: Callable[[], bool]):
        self.is_lost = is_lost

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._check(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self.is_lost():
            raise TrainingError(
                f"{trainer.default_root_dir}: another process has taken the run directory over, having seen "
                "no sign of life of this one; it goes on with the run, and this one ends"
            )
