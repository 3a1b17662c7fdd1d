"""Saving checkpoints as a run goes."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger

from ddpm.runtime.progress import Pause
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.checkpoints import LAST, AtomicCheckpointIO, at_step, left_over, numbered, parts
from ddpm.training.checkpoints.layout import CheckpointError, mapped, tensors_in
from ddpm.training.checkpoints.snapshot import room
from ddpm.training.checkpoints.whole_files import flush_directory, link
from ddpm.training.ending import TrainingError
from ddpm.training.loggers import WandbLogger
from ddpm.training.loggers.failures import forgiven
from ddpm.training.shards import own_rows

log = logging.getLogger(__name__)


class Checkpoints(EveryNSteps):
    """Saves `checkpoints/step_XXXXXXXX.ckpt` as the run goes, and `last.ckpt`, which always is the newest.

    Files of other names in that directory are left alone. A checkpoint that cannot be written is a warning,
    and a reason to end the run only where it is the last.

    Args:
        every_n_steps: optimizer steps between checkpoints; the end of the run is saved in any case.
        keep: how many of the newest stay; None keeps all. Two or more, so that a damaged one has a
            predecessor.
        milestones_every_n_steps: checkpoints that stay forever; must be a multiple of `every_n_steps`. None
            for no milestones.
        every_n_minutes: at most so long between two checkpoints, however long a step takes; `Interruption`
            looks at the clock of the first process. None leaves it to the steps.
    """

    def __init__(
        self,
        every_n_steps: int = 10_000,
        keep: int | None = 3,
        milestones_every_n_steps: int | None = None,
        every_n_minutes: float | None = 30,
    ):
        super().__init__(every_n_steps)
        if keep is not None and keep < 2:
            raise ValueError(f"callbacks.checkpoints.keep={keep} must be at least 2, or null to keep all")
        if milestones_every_n_steps is not None and (
            milestones_every_n_steps < 1 or milestones_every_n_steps % every_n_steps
        ):
            raise ValueError(
                f"callbacks.checkpoints.milestones_every_n_steps={milestones_every_n_steps} must be a "
                f"multiple of every_n_steps={every_n_steps}"
            )
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise ValueError(
                f"callbacks.checkpoints.every_n_minutes={every_n_minutes} must be above 0, or null"
            )
        self.keep = keep
        self.milestones_every_n_steps = milestones_every_n_steps
        self.every_n_minutes = every_n_minutes
        self._saved_step = -1
        self._saved_at = time.monotonic()
        self._is_prepared = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step, self._saved_at, self._is_prepared = -1, time.monotonic(), False
        if trainer.is_global_zero:
            directory = _directory(trainer)
            for path in (*left_over(directory), *left_over(directory / parts.DIRECTORY)):
                _drop(path)
            for path in parts.unlisted(directory):  # after a head that is half written, which may list some
                _drop(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (writer := _writer(trainer)) is not None:
            writer.check()
            if not self._is_prepared and trainer.global_step > self._before:
                # the optimizer has its state by now, so that the memory for all of it is known
                self._is_prepared = True
                _check_states(trainer)
                _prepare(writer, trainer, pl_module)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.finish(trainer)

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        return Pause("checkpoint", self.every_n_steps)

    def overdue(self) -> bool:
        """Whether the last checkpoint is older than `every_n_minutes` by the clock of this process. Several
        processes must agree before they save.
        """
        return self.every_n_minutes is not None and (
            time.monotonic() - self._saved_at >= 60 * self.every_n_minutes
        )

    def save(self, trainer: Trainer) -> None:
        """Save the run as it is now, unless this step is saved already. Every rank must call it.

        Returns when the state is copied, and writing has begun.

        Raises:
            TrainingError: where the state must not be written.
        """
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step, self._saved_at = step, time.monotonic()
        path = _directory(trainer) / at_step(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            _then(trainer, partial(self._follow, path, step, trainer.loggers))

    def finish(self, trainer: Trainer) -> None:
        """Save the run as it ends, and wait until that is written. Every rank must call it.

        Raises:
            TrainingError: where it cannot be written; on every rank.
        """
        error, unfit = self._outcome(trainer)
        if error is not None and unfit is None:
            self._saved_step = -1  # once more, there may be room by now
        if unfit is None:
            self.save(trainer)
            error, unfit = self._outcome(trainer)
        if error is not None:
            raise TrainingError(error)

    def _outcome(self, trainer: Trainer) -> tuple[str | None, str | None]:
        """Why the latest checkpoint is not there, and why it must not be; the same on every rank."""
        writer = _writer(trainer)
        if writer is None:
            return None, None
        writer.wait()
        outcome: tuple[str | None, str | None] = trainer.strategy.broadcast((writer.error, writer.unfit))
        return outcome

    def _follow(self, path: Path, step: int, loggers: Sequence[Logger]) -> None:
        """What is done when a checkpoint is written."""
        link(path, path.with_name(LAST))
        flush_directory(path.parent)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                with forgiven(logger, "log_checkpoint"):
                    logger.log_checkpoint(path, step)
        saved = numbered(path.parent)
        for step in sorted(saved)[: -self.keep] if self.keep else []:
            if not self.milestones_every_n_steps or step % self.milestones_every_n_steps:
                parts.remove(saved[step])


def _drop(path: Path) -> None:
    log.info("removing %s, which a write that was killed left", path)
    path.unlink(missing_ok=True)


def _directory(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def _writer(trainer: Trainer) -> AtomicCheckpointIO | None:
    """What writes the checkpoints of a run; None for one that a person brought, who writes at once."""
    writer = trainer.strategy.checkpoint_io
    return writer if isinstance(writer, AtomicCheckpointIO) else None


def _then(trainer: Trainer, job: Callable[[], None]) -> None:
    """Do something when the checkpoint is written."""
    writer = _writer(trainer)
    if writer is None:
        job()
    else:
        writer.then(job)


def _check_states(trainer: Any) -> None:
    """Refuse in the first step what no checkpoint can hold, which would end the run at the first of them.

    Raises:
        TrainingError: for a callback whose state is no plain values and tensors.
    """
    for callback in trainer.callbacks:
        try:
            mapped(callback.state_dict(), lambda tensor: tensor, f"the state of {type(callback).__name__}")
        except CheckpointError as error:
            raise TrainingError(f"callbacks: {error}") from error


def _prepare(writer: AtomicCheckpointIO, trainer: Trainer, module: LightningModule) -> None:
    """Take memory for the checkpoints of this run, where this process copies and writes them: the first, or
    each its part. A sharded network is gathered into memory of its own otherwise.
    """
    in_parts = getattr(trainer.strategy, "saves_parts", False)
    if not in_parts and (not trainer.is_global_zero or getattr(module, "is_sharded", False)):
        return
    average = getattr(module, "ema", None)
    state = [
        module.state_dict(),
        average.state_dict() if average is not None else None,
        [optimizer.state_dict() for optimizer in trainer.optimizers],
    ]
    tensors = [tensor for _, tensor in tensors_in(state, "")]
    size = room(own if (own := own_rows(tensor)) is not None else tensor for tensor in tensors)
    writer.prepare(size, module.device if module.device.type == "cuda" else None)
