"""Scalars of a run: summed on the device, reduced over ranks and read once a row."""

import math
from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer
from torch import Tensor


class RunningMean:
    """A mean over steps and ranks that waits for no device until it is reduced.

    torchmetrics' MeanMetric gives the same by 8 operators on the device a value, and as it comes, looking for
    NaN, by 13 and two waits; this takes one.
    """

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count: Tensor | int = 0

    def add(self, total: Tensor | float, count: Tensor | int = 1) -> None:
        """Add the sum of `count` values."""
        self.total = self.total + total
        self.count += count


def reduce(means: Mapping[str, RunningMean]) -> dict[str, float]:
    """The means over all ranks, which then start anew. One collective and one wait, however many there are.

    Every rank must call it, with the same names. A mean of nothing is NaN.
    """
    device = next((mean.total.device for mean in means.values() if isinstance(mean.total, Tensor)), "cpu")
    # float32, as the sums are: Apple's GPUs have no float64; counts are exact in it up to 2^24 a rank
    sums = torch.stack(
        [torch.as_tensor(mean.total, device=device, dtype=torch.float32) for mean in means.values()]
    )
    counts = torch.tensor([mean.count for mean in means.values()], device=device, dtype=torch.float32)
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
    Lightning's check of the validation before training begins is not logged.
    """
    if trainer.sanity_checking:
        return
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=trainer.global_step)
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in metrics.items()})
