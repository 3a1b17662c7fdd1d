"""Ending a run early without losing it: a signal becomes a checkpoint and an orderly end on every rank."""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ddpm.runtime.peers import Peers
from ddpm.runtime.signals import Signals
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.ending import Interrupted, TrainingError

log = logging.getLogger(__name__)

AGREE_EVERY = 1.0
"""Seconds, about, between two times that the ranks ask each other; it takes each of them a wait for all."""

MOST_STEPS = 10
"""Optimizer steps between them, however short they are: the next ones may be longer."""


class Interruption(EveryNSteps):
    """Turns a signal, on any rank, into `Interrupted` on all ranks at the same step; saves checkpoints that
    are due by the clock, which is each rank's own.

    Ranks agree about once a second, in a number of steps that follows from how long a step takes the slowest.

    Args:
        signals: of this process; None to hear them here, from the trainer's start to its end.
        peers: the other ranks; None for a single process.
    """

    def __init__(self, signals: Signals | None = None, peers: Peers | None = None):
        super().__init__(every_n_steps=1)
        self._hears = signals is None
        self.signals = signals or Signals(on_first=_say, on_second=_end_at_once)
        self.peers = peers
        self.has_begun = False  # a step was made, so that there is something to lose
        self.turn = 0  # of what the leader does alone
        self._agree_at = 0
        self._agreed = 0, time.monotonic()  # the step when the ranks last asked each other, and when

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handler of SIGTERM hands it on to every rank, and waits for them in a collective
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = _nothing
        if self._hears:
            self.signals.listen()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._deaf()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._deaf()

    def _deaf(self) -> None:
        if self._hears:
            self.signals.close()

    # A signal, or a checkpoint's time

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # where a run has gone back to a checkpoint, the step of the next question is far ahead
        self._agree_at, self._agreed = 0, (0, time.monotonic())

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self.has_begun = True
        self._progress(phase="training", step=step, within=(0, 0))
        if trainer.world_size > 1 and step < self._agree_at and step != trainer.max_steps:
            return
        due = any(callback.overdue() for callback in checkpoints_of(trainer))
        before, then = self._agreed
        now = time.monotonic()
        a_step = (now - then) / (step - before) if 0 < before < step else AGREE_EVERY
        signum, due_somewhere, a_step = _most(trainer, self.signals.received, due, a_step)
        self._agreed = step, now
        self._agree_at = step + max(1, min(MOST_STEPS, int(AGREE_EVERY / max(a_step, 1e-6))))
        if signum:
            self._end(trainer, int(signum))
        elif due_somewhere:
            save(trainer)

    def end_if_asked(self, trainer: Trainer) -> None:
        """Save and raise `Interrupted` where any rank was asked to end. All must call it."""
        signum, *_ = _most(trainer, self.signals.received)
        if signum:
            self._end(trainer, int(signum))

    def _end(self, trainer: Trainer, signum: int) -> None:
        for callback in checkpoints_of(trainer):
            callback.finish(trainer)  # what is written in the background, too
        raise Interrupted(signum)

    # Validation: whoever was asked to end leaves out what is left of it, and all meet at its end

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress(phase="validation", within=(1, 0))

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._progress(within=(1, batch_idx))
        leaves = self.signals.received and not trainer.sanity_checking
        if leaves and not getattr(pl_module, "is_sharded", False):  # through which all ranks go together
            raise StopIteration  # by which Lightning's loop knows that there are no more batches

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before anything is made of a validation of which a part may be missing."""
        if not trainer.sanity_checking:
            self.end_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress(phase="training", within=(2, 0))

    # How far this rank is, for those that wait for it

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._progress(phase="training" if self.has_begun else None, within=(3, 0))

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        self._progress(within=(3, 1))

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress(within=(3, 2))

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._progress(phase="saving", step=trainer.global_step)

    def _progress(self, **what: Any) -> None:
        if self.peers is not None:
            self.peers.progress(**what)


def _nothing() -> None:
    """In place of Lightning's handlers."""


def _say(signum: int) -> None:
    log.warning("%s: saving and ending; once more to end at once", signal.Signals(signum).name)


def _end_at_once(signum: int) -> None:
    os._exit(128 + signum)


def _most(trainer: Trainer, *numbers: float) -> list[float]:
    """Of each number the greatest of all ranks. All must call it."""
    if trainer.world_size == 1:
        return list(numbers)
    greatest = torch.tensor(numbers, device=trainer.strategy.root_device)
    torch.distributed.all_reduce(greatest, op=torch.distributed.ReduceOp.MAX)
    return greatest.tolist()


def save(trainer: Trainer) -> None:
    """Save the run as it stands, unless that is saved already. All ranks must call it."""
    for callback in checkpoints_of(trainer):
        callback.save(trainer)


def interruption(trainer: Trainer) -> Interruption | None:
    """The callback of a trainer; a person's own may have none."""
    return next((c for c in _callbacks(trainer) if isinstance(c, Interruption)), None)


def received(trainer: Trainer) -> int:
    """The signal that asks this process to end, or 0."""
    found = interruption(trainer)
    return found.signals.received if found else 0


@contextmanager
def leader_alone(trainer: Trainer) -> Iterator[bool]:
    """Within it the leader works, and the others are to do nothing: they wait at its end for as long as it
    takes, outside of a collective, whose timeout it may exceed by far. They hear of signals and of failures.

    Yields:
        Whether this process is the leader.

    Raises:
        TrainingError: where another rank has failed meanwhile.
    """
    found = interruption(trainer)
    peers = found.peers if found else None
    if found is None or peers is None:
        yield trainer.is_global_zero
        trainer.strategy.barrier()
        return
    found.turn += 1
    phase = peers.state.phase
    peers.progress(phase="grid", step=trainer.global_step, waiting=not trainer.is_global_zero)
    yield trainer.is_global_zero
    if trainer.is_global_zero:
        peers.announce(found.turn)
    elif not peers.wait(found.turn):
        assert peers.failure is not None
        raise TrainingError(peers.failure.text)
    peers.progress(phase=phase, waiting=False)


@contextmanager
def together(trainer: Trainer) -> Iterator[bool]:
    """Within it all ranks do the same, in the same order, and share what they do it with.

    Yields:
        True, on every rank.
    """
    found = interruption(trainer)
    peers = found.peers if found else None
    if peers is None:
        yield True
        return
    phase = peers.state.phase
    peers.progress(phase="grid", step=trainer.global_step)
    yield True
    peers.progress(phase=phase)


def received_anywhere(trainer: Trainer) -> bool:
    """Whether a signal asks any rank to end. All must call it."""
    (signum,) = _most(trainer, received(trainer))
    return bool(signum)


def progressed(trainer: Trainer) -> None:
    """The leader, alone, has got further."""
    found = interruption(trainer)
    if found is not None and found.peers is not None:
        found.peers.progress()


def end_if_asked(trainer: Trainer) -> None:
    """See `Interruption.end_if_asked`; nothing where a trainer has no such callback."""
    if (found := interruption(trainer)) is not None:
        found.end_if_asked(trainer)


def checkpoints_of(trainer: Trainer) -> list[Checkpoints]:
    """The callbacks that save a run as it stands."""
    return [callback for callback in _callbacks(trainer) if isinstance(callback, Checkpoints)]


def _callbacks(trainer: Any) -> list[Any]:
    return list(trainer.callbacks)  # Lightning's own type hints do not know of it
