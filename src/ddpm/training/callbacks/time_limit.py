"""Ending a run after so much time, however often it was continued."""

from datetime import timedelta
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage


class TimeLimit(Timer):
    """Ends this start of a run after a time; the next start has its whole time again.

    Lightning's own keeps the elapsed time in checkpoints: a continued run would end at once. It also ends
    between the micro-batches of a step, whose gradients so far would be lost. This one ends behind a step,
    and has it saved before the validation that Lightning makes at the end, so that a run that goes on knows
    nothing of it. A fit that was broken off, as by a return to a checkpoint, has used up its part.

    Args:
        duration: "DD:HH:MM:SS", a timedelta, or its arguments as a dictionary, as for `trainer.max_time`.
    """

    def __init__(self, duration: str | timedelta | dict[str, int]):
        if not isinstance(duration, str | timedelta | dict):
            raise ValueError(
                f"{duration} must be DD:HH:MM:SS, or the arguments of a timedelta: {{minutes:90}}"
            )
        super().__init__(duration=duration, verbose=False)
        self.duration = str(timedelta(seconds=float(self._duration or 0)))
        self.has_ended = False
        """Whether it was the time that ended the training, and not something else before."""

    def on_fit_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        self.has_ended = False
        super().on_fit_start(trainer, *args, **kwargs)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        began = self._start_time[RunningStage.TRAINING]
        was_broken_off = began is not None and self._end_time[RunningStage.TRAINING] is None
        super().on_train_start(trainer, pl_module)
        self._end_time[RunningStage.TRAINING] = None
        if was_broken_off:
            self._start_time[RunningStage.TRAINING] = began

    def _check_time_remaining(self, trainer: Trainer) -> None:
        going_on = not trainer.should_stop
        super()._check_time_remaining(trainer)
        self.has_ended |= going_on and trainer.should_stop

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.fit_loop._should_accumulate():
            return
        going_on = not trainer.should_stop
        super().on_train_batch_end(trainer, *args, **kwargs)
        if going_on and trainer.should_stop:
            from ddpm.training.callbacks.checkpoints import Checkpoints  # which imports this

            callbacks: list[Any] = list(trainer.callbacks)  # type: ignore[attr-defined]  # it has no type
            for callback in callbacks:
                if isinstance(callback, Checkpoints):
                    callback.save(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What an earlier start has used up is not counted."""


def is_over(timer: Timer) -> bool:
    """Whether the time is over; after the training, whether it was when the training ended."""
    left = timer.time_remaining()
    return left is not None and left <= 0
