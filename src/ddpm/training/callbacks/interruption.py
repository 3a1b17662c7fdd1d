"""Ending a run early without losing it: a signal becomes a checkpoint and an orderly end on every rank."""

import logging
import signal
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.ending import Interrupted

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption(EveryNSteps):
    """Turns SIGTERM and Ctrl-C, on any rank, into `Interrupted` on all ranks at the same step.

    A second signal ends the process at once. While pictures are drawn it is `SampleGrids` that looks at
    `received`, the number of the signal, or 0.

    Args:
        agree_every_n_steps: how often several ranks ask each other; a single one looks after every step.
    """

    def __init__(self, agree_every_n_steps: int = 10):
        super().__init__(every_n_steps=1)
        self.agree_every_n_steps = agree_every_n_steps
        self.received = 0
        self._previous: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for signum in SIGNALS:
            self._previous[signum] = signal.signal(signum, self._receive)

    def _receive(self, signum: int, frame: Any) -> None:
        if self.received:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.received = signum
        log.warning("%s: saving and ending; once more to end at once", signal.Signals(signum).name)

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        signum = self.received
        if trainer.world_size > 1:
            if step % self.agree_every_n_steps and step != trainer.max_steps:
                return
            agreed = torch.tensor(signum, device=module.device)
            torch.distributed.all_reduce(agreed, op=torch.distributed.ReduceOp.MAX)
            signum = int(agreed)
        if signum:
            for callback in checkpoints_of(trainer):
                callback.finish(trainer)
            raise Interrupted(signum)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}


def received(trainer: Trainer) -> int:
    """The signal that asks this process to end, or 0."""
    return max((c.received for c in _callbacks(trainer) if isinstance(c, Interruption)), default=0)


def checkpoints_of(trainer: Trainer) -> list[Checkpoints]:
    """The callbacks that save a run as it stands."""
    return [callback for callback in _callbacks(trainer) if isinstance(callback, Checkpoints)]


def _callbacks(trainer: Any) -> list[Any]:
    return list(trainer.callbacks)  # Lightning's own type hints do not know of it
