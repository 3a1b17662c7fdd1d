"""Why a training ended, in words."""

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from ddpm.training.callbacks.time_limit import TimeLimit, is_over


def why_it_ended(trainer: Trainer) -> str | None:
    """The reason for which `trainer.fit` returned; None where it has not been run to an end of its own."""
    callbacks: list[Any] = list(getattr(trainer, "callbacks", ()))
    max_epochs = trainer.max_epochs
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps={trainer.max_steps} is reached"
    for callback in callbacks:
        if isinstance(callback, TimeLimit) and is_over(callback):
            return f"trainer.max_time is over, {callback.duration}"
    for callback in callbacks:
        if isinstance(callback, Timer) and is_over(callback):
            name = type(callback).__name__
            return f"{name}: its time is over, earlier starts included; trainer.max_time counts each anew"
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            reason = callback.stopping_reason_message.removesuffix("Signaling Trainer to stop.").strip()
            return f"EarlyStopping: {reason}"
    if trainer.should_stop:
        return "a callback asked for it (trainer.should_stop)"
    if max_epochs is not None and 0 <= max_epochs <= trainer.current_epoch:
        return f"trainer.max_epochs={max_epochs} is reached"
    return None
