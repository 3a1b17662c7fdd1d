"""Loss, speed and time left of the training, on the terminal."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.runtime.progress import Countdown


class TrainingProgress(Callback):
    """Loss, speed and time left of the training."""

    def __init__(self) -> None:
        self._countdown: Countdown | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._countdown = Countdown("training", trainer.max_steps, trainer.global_step).__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._countdown is None:
            return
        text = None
        if trainer.global_step % trainer.log_every_n_steps == 0:
            latest = trainer.callback_metrics
            text = "  ".join(
                f"{label} {float(latest[name]):.{digits}f}{unit}"
                for name, label, digits, unit in (
                    ("train/loss", "loss", 4, ""),
                    ("val/loss", "val", 4, ""),
                    ("perf/steps_per_second", "", 1, " steps/s"),
                )
                if name in latest
            )
        self._countdown.advance(trainer.global_step, text)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._countdown is not None:
            self._countdown.__exit__()
            self._countdown = None
