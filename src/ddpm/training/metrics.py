"""Scalars of a run: summed on the device, reduced over ranks and read once a row, written at completed
steps.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.training.performance import GIB, STEP, DataWait, matmul_peak, peak_memory


class RunningMean:
    """A mean over steps and ranks that waits for no device until it is reduced."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, total: Tensor | float, count: int = 1) -> None:
        """Add the sum of `count` values."""
        self.total = self.total + total
        self.count += count


def reduce(means: Mapping[str, RunningMean]) -> dict[str, float]:
    """The means over all ranks, which then start anew. One collective and one wait, however many there are.

    Every rank must call it, with the same names. A mean of nothing is NaN.
    """
    device = next((mean.total.device for mean in means.values() if isinstance(mean.total, Tensor)), "cpu")
    sums = torch.stack([torch.as_tensor(mean.total, device=device).double() for mean in means.values()])
    counts = torch.tensor([mean.count for mean in means.values()], device=device, dtype=torch.float64)
    packed = torch.stack([sums, counts])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(packed)
    for mean in means.values():
        mean.total, mean.count = 0.0, 0
    sums_, counts_ = packed.tolist()
    return {name: s / c if c else math.nan for name, s, c in zip(means, sums_, counts_, strict=True)}


def log_scalars(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Write scalars to every logger at the number of completed optimizer steps; the one way to do so.

    They are also put where Lightning's own callbacks, such as EarlyStopping, look for what they monitor.
    """
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})


class TrainingRows(Callback):
    """Logs the training loss, its gradient's norm, the learning rate and the speed, every
    `log_every_n_steps`.

    Speed is over all the time since the last row, with whatever else happened in it.

    Args:
        waiting: for data; None leaves its share out.
    """

    def __init__(self, waiting: DataWait | None = None) -> None:
        self.waiting = waiting
        self._last_step = 0
        self._last_time = 0.0
        self._peak = math.nan

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._peak = matmul_peak(module.device, str(trainer.precision)) * trainer.world_size
        self._last_step, self._last_time = trainer.global_step, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._log(trainer, module)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._log(trainer, module)

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        step = trainer.global_step
        if step == self._last_step:
            return
        now = time.perf_counter()
        elapsed = now - self._last_time
        means = {"train/loss": module.train_loss, "train/gradient_norm": module.gradient_norm}
        if self.waiting is not None:
            share = RunningMean()
            share.add(self.waiting.taken() / elapsed)
            means["perf/data_wait"] = share
        row = reduce(means)
        row["train/learning_rate"] = module.learning_rate
        steps_per_second = (step - self._last_step) / elapsed
        flops = steps_per_second * trainer.datamodule.batch_size * STEP * module.flops_an_image
        row |= {
            "perf/steps_per_second": steps_per_second,
            "perf/images_per_second": steps_per_second * trainer.datamodule.batch_size,
            "perf/flops_per_second": flops,
            "perf/mfu": flops / self._peak,
            "perf/peak_memory_gib": self._peak_memory(trainer, module),
        }
        self._last_step, self._last_time = step, now
        log_scalars(trainer, row)

    @staticmethod
    def _peak_memory(trainer: Trainer, module: LightningModule) -> float:
        """Of the rank that holds most."""
        most = torch.tensor(peak_memory(module.device) / GIB, device=module.device)
        return float(trainer.strategy.reduce(most, reduce_op="max"))
