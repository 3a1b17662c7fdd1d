"""Ending the run of a trial early that other trials of its search have left behind."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.ending import Pruned
from ddpm.training.trials import Trial

log = logging.getLogger(__name__)


class Pruning(Callback):
    """Reports a metric after each validation, and ends the run, saved, where the search says so. Only the
    leader reports; all ranks end at the same step. The last of the callbacks, so that the others have seen
    the validation.

    A study that cannot be reached is a warning: the run goes on to its end.

    Args:
        trial: that the run is.
    """

    def __init__(self, trial: Trial):
        self.trial = trial
        self._has_warned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        step = trainer.global_step
        why = self._told(trainer, step) if trainer.is_global_zero else None
        if trainer.world_size > 1:
            why = trainer.strategy.broadcast(why)
        if why is None or 0 <= trainer.max_steps <= step:  # one that is through is complete
            return
        callbacks: list[Any] = list(getattr(trainer, "callbacks", ()))
        for callback in callbacks:
            if isinstance(callback, Checkpoints):
                callback.finish(trainer)
        raise Pruned(why)

    def _told(self, trainer: Trainer, step: int) -> str | None:
        """Why the run is to end, or None."""
        monitor = self.trial.monitor
        value = trainer.callback_metrics.get(monitor)
        if value is None:
            self._warn("%s is not measured, so that the search hears nothing of this run", monitor)
            return None
        try:
            is_left_behind = self.trial.report(float(value), step)
        except Exception as error:  # a full disk, a study that somebody removed: no reason to lose the run
            self._warn("the search is not told of step %d: %s: %s", step, type(error).__name__, error)
            return None
        if not is_left_behind:
            return None
        return f"{monitor} is {float(value):.5g}, and earlier trials were better at step {step}"

    def _warn(self, text: str, *about: object) -> None:
        if not self._has_warned:
            log.warning(text, *about)
        self._has_warned = True
