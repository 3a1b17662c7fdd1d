"""Loss, speed and time left of the training, on the terminal."""

from lightning.pytorch import LightningModule, Trainer

from ddpm.runtime.progress import Countdown
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.scalars import writes_row

SHOWN = (
    ("train/loss", "loss", 4, ""),
    ("val/loss", "val", 4, ""),
    ("perf/steps_per_second", "", 1, " steps/s"),
)
"""Metrics beside the bar: their name, what they are called there, decimals and unit."""


class TrainingProgress(EveryNSteps):
    """Loss, speed and time left of the training."""

    def __init__(self) -> None:
        super().__init__(every_n_steps=1)
        self._countdown: Countdown | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._countdown = Countdown("training", trainer.max_steps, trainer.global_step).__enter__()

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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._countdown is not None:
            self._countdown.__exit__()
            self._countdown = None
