"""Why a training ended: what it raised or reached, in words, with the exit code that says so."""

import signal
from dataclasses import dataclass
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from ddpm.training.callbacks.time_limit import TimeLimit, is_over


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The run was asked to end, and its state is saved."""

    def __init__(self, signum: int):
        super().__init__(f"interrupted by {signal.Signals(signum).name}")
        self.signum = signum


class Pruned(Exception):  # noqa: N818 - it is no error
    """The search that the run is a trial of has ended it early, and its state is saved."""


class TrainingError(RuntimeError):
    """Why a run cannot go on, in words that need no traceback."""

    exit_code = 1


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        status: as run.json has it.
        exit_code: of the process.
        why: in words; None where nothing is known.
    """

    status: Literal["finished", "pruned", "interrupted", "failed"]
    exit_code: int
    why: str | None


def ending(trainer: Trainer, raised: BaseException | None) -> Ending:
    """How a training ended that raised this, or nothing."""
    if raised is None:
        return Ending("finished", 0, why_it_ended(trainer))
    if isinstance(raised, Interrupted):
        return Ending("interrupted", 128 + raised.signum, signal.Signals(raised.signum).name)
    if isinstance(raised, Pruned):
        return Ending("pruned", 0, str(raised))
    if isinstance(raised, TrainingError):
        return Ending("failed", raised.exit_code, str(raised))
    first_line = (str(raised).strip().splitlines() or [""])[0]
    return Ending("failed", 1, f"{type(raised).__name__}: {first_line}")


def why_it_ended(trainer: Trainer) -> str | None:
    """The reason for which `trainer.fit` returned; None where it has not been run to an end of its own."""
    callbacks: list[Any] = list(getattr(trainer, "callbacks", ()))
    max_epochs = trainer.max_epochs
    if 0 <= trainer.max_steps <= trainer.global_step:
        return f"trainer.max_steps={trainer.max_steps} is reached"
    for callback in callbacks:
        if isinstance(callback, TimeLimit) and callback.has_ended:
            return f"trainer.max_time is over, {callback.duration}"
    for callback in callbacks:
        if isinstance(callback, Timer) and not isinstance(callback, TimeLimit) and is_over(callback):
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
