"""Loss, speed, time left and what comes next of the training, on the terminal."""

import logging
import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from ddpm.runtime.arithmetic import STEP
from ddpm.runtime.progress import Countdown, Pause, duration
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.scalars import writes_row

log = logging.getLogger(__name__)

SHOWN = (
    ("train/loss", "loss", 4, ""),
    ("val/loss", "val", 4, ""),
    ("perf/images_per_second", "", 0, " images/s"),
)
"""Metrics beside the bar: their name, what they are called there, decimals and unit."""


JUDGED_AT = 5
"""Steps of this start after which it is said whether a CPU is too slow for the run."""

TOO_LONG = 86_400.0
"""Seconds."""


class TrainingProgress(EveryNSteps):
    """Loss, speed and time left of the training, and the steps of the next validation, grid and checkpoint.

    What comes between the steps is counted in what is left, also the grid at the end: by the arithmetic it
    takes until one has been seen, then by the time that it took.
    """

    def __init__(self) -> None:
        super().__init__(every_n_steps=1)
        self._countdown: Countdown | None = None
        self._begins_at: int | None = None  # the first step of this start, until it is over
        self._judged_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            pauses = _pauses(trainer, pl_module)
            self._countdown = Countdown(
                "training", trainer.max_steps, trainer.global_step, pauses
            ).__enter__()
        self._begins_at = trainer.global_step + 1
        self._judged_at = trainer.global_step + JUDGED_AT

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._countdown is None:
            return
        if trainer.global_step == self._begins_at:  # pictures, compiling: the first step takes longer
            self._begins_at = None  # once: the batches of an accumulated step begin at one step
            self._countdown.begin_here(trainer.global_step)
        else:  # what belongs to the step before is over by now
            self._countdown.measure(trainer.global_step)

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        if self._countdown is None:
            return
        text = None
        if writes_row(trainer, step):
            latest = trainer.callback_metrics
            text = "  ".join(
                f"{label} {float(latest[name]):,.{digits}f}{unit}".strip()
                for name, label, digits, unit in SHOWN
                if name in latest
            )
            log.debug("step %d  %s", step, text)
        self._countdown.show(step, text)
        seconds = self._countdown.seconds_left() if step == self._judged_at else None
        if seconds is not None and seconds > TOO_LONG and module.device.type == "cpu":
            log.warning(
                "this takes about %s on this CPU: it is meant for a GPU; trainer.max_steps=N is shorter, "
                "recipe=digits and model=tiny are smaller, preflight=true says beforehand what a run takes",
                duration(seconds),
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._countdown is not None:
            self._countdown.__exit__()
            self._countdown = None


def _pauses(trainer: Any, module: LightningModule) -> list[Pause]:
    """What is done between the steps of a training."""
    found = []
    batches = sum(trainer.num_val_batches)
    if batches and trainer.check_val_every_n_epoch is None:
        every = max(1, int(trainer.val_check_batch) // trainer.accumulate_grad_batches)
        guess = 0.0 if math.isinf(batches) else batches / (STEP * trainer.accumulate_grad_batches)
        found.append(Pause("validation", every, guess))
    counting = (callback for callback in trainer.callbacks if isinstance(callback, EveryNSteps))
    return [*found, *filter(None, (callback.pause(trainer, module) for callback in counting))]
