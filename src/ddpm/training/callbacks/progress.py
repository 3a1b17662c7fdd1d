"""Loss, speed and time left of the training, on the terminal."""

import logging

from lightning.pytorch import LightningModule, Trainer

from ddpm.runtime.progress import Countdown, duration
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.scalars import writes_row

log = logging.getLogger(__name__)

SHOWN = (
    ("train/loss", "loss", 4, ""),
    ("val/loss", "val", 4, ""),
    ("perf/steps_per_second", "", 1, " steps/s"),
)
"""Metrics beside the bar: their name, what they are called there, decimals and unit."""


JUDGED_AT = 5
"""Steps of this start after which it is said whether a CPU is too slow for the run."""

TOO_LONG = 86_400.0
"""Seconds."""


class TrainingProgress(EveryNSteps):
    """Loss, speed and time left of the training."""

    def __init__(self) -> None:
        super().__init__(every_n_steps=1)
        self._countdown: Countdown | None = None
        self._judged_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._countdown = Countdown("training", trainer.max_steps, trainer.global_step).__enter__()
        self._judged_at = trainer.global_step + JUDGED_AT

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        if self._countdown is None:
            return
        text = None
        if writes_row(trainer, step):
            latest = trainer.callback_metrics
            text = "  ".join(
                f"{label} {float(latest[name]):.{digits}f}{unit}"
                for name, label, digits, unit in SHOWN
                if name in latest
            )
        self._countdown.advance(step, text)
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
