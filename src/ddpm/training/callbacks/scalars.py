"""The scalars of training, a row every so many steps."""

import logging
import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from ddpm.runtime.arithmetic import STEP, matmul_peak
from ddpm.runtime.memory import GIB, peak_memory, peak_of_process
from ddpm.training import replicas
from ddpm.training.callbacks.data_wait import DataWait
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.loggers import raise_alert
from ddpm.training.metrics import RunningMean, log_scalars, reduce
from ddpm.training.spikes import LossSpikes

log = logging.getLogger(__name__)


def writes_row(trainer: Any, step: int) -> bool:
    """Whether the scalars of this step are written; `trainer.log_every_n_steps` is 0 where none are."""
    every: int = trainer.log_every_n_steps
    return every > 0 and step % every == 0


class TrainingRows(EveryNSteps):
    """Logs the training loss, its gradient's norm, the learning rate and the speed, every
    `log_every_n_steps`.

    What is left at the end of an epoch is a row too; a run of ours is one epoch. Speed is over all the time
    since the last row, with whatever else happened in it; where a run went on in between, without what was
    lost and the time between the two starts. A row whose loss is a spike (see `ddpm.training.spikes`) has a
    column that says so.

    Args:
        waiting: for data; None leaves its share out.
    """

    def __init__(self, waiting: DataWait | None = None) -> None:
        super().__init__(every_n_steps=1)
        self.waiting = waiting
        self._last_step = 0
        self._last_time = 0.0
        self._saved: dict[str, Any] | None = None  # of a checkpoint: since its last row
        self._peak = math.nan
        self._spikes = LossSpikes()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._peak = matmul_peak(pl_module.device, str(trainer.precision)) * trainer.world_size
        self._last_step, self._last_time = trainer.global_step, time.perf_counter()
        replicas.take_times(trainer)
        if self._saved is not None:
            self._last_step = self._saved["last_step"]
            self._last_time -= self._saved["seconds"]
            self._saved = None

    def state_dict(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self._last_time
        return {"last_step": self._last_step, "seconds": seconds, "spikes": self._spikes.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = dict(state_dict)
        self._spikes.load_state_dict(state_dict.get("spikes", {}))

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        if writes_row(trainer, step):
            self._log(trainer, module)

    def on_train_epoch_end(self, trainer: Any, pl_module: LightningModule) -> None:
        if trainer.log_every_n_steps:
            self._log(trainer, pl_module)

    def _log(self, trainer: Any, module: Any) -> None:
        step = trainer.global_step
        if step == self._last_step:
            return
        now = time.perf_counter()
        elapsed = now - self._last_time
        module.guard.settle(module)
        means = {"train/loss": module.train_loss, "train/gradient_norm": module.gradient_norm}
        if self.waiting is not None:
            share = RunningMean()
            share.add(self.waiting.taken() / elapsed)
            means["perf/data_wait"] = share
        if (waited := replicas.seconds_waited(trainer)) is not None:
            share = RunningMean()
            share.add(waited * (step - self._last_step) / elapsed)
            means["perf/rank_wait"] = share
        row = reduce(means, module.device)
        row["train/learning_rate"] = module.learning_rate
        if module.guard.skipped:
            row["diagnostics/skipped_steps"] = module.guard.skipped
        if ratio := self._spikes.ratio(row["train/loss"]):
            row["diagnostics/loss_spike"] = ratio
            if trainer.is_global_zero:
                what = f"step {step}: the loss is {ratio:.1f} times that of the rows before"
                log.warning("%s", what)
                raise_alert(trainer, "the loss has jumped", what)
        steps_per_second = (step - self._last_step) / elapsed
        row["perf/steps_per_second"] = steps_per_second
        images_per_second = steps_per_second * module.images_per_step
        flops = images_per_second * STEP * module.flops_per_image
        row["perf/images_per_second"] = images_per_second
        row["perf/flops_per_second"] = flops
        row["perf/mfu"] = flops / self._peak
        row["perf/peak_memory_gib"] = _of_most(trainer, module, peak_memory(module.device) / GIB)
        if module.device.type != "cpu":  # where the two are one
            row["perf/host_memory_gib"] = _of_most(trainer, module, peak_of_process() / GIB)
        self._last_step, self._last_time = step, now
        log_scalars(trainer, row)
        if trainer.progress_bar_callback is not None:  # one of Lightning's
            module.log("train/loss", row["train/loss"], logger=False, prog_bar=True, sync_dist=True)


def _of_most(trainer: Trainer, module: LightningModule, value: float) -> float:
    """The value of the rank that has the largest."""
    return float(trainer.strategy.reduce(torch.tensor(value, device=module.device), reduce_op="max"))
