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


def reduce(means: Mapping[str, RunningMean], device: torch.device) -> dict[str, float]:
    """The means over all ranks, which then start anew. One collective and one wait, however many there are.

    Every rank must call it, with the same names. A mean of nothing is NaN.
    """
    packed = _packed(means, device)
    if _several_ranks():
        torch.distributed.all_reduce(packed)
    for mean in means.values():
        mean.total, mean.count = 0.0, 0
    sums_, counts_ = packed.tolist()
    return {name: s / c if c else math.nan for name, s, c in zip(means, sums_, counts_, strict=True)}


def state_of(means: Mapping[str, RunningMean], device: torch.device) -> dict[str, list[list[float]]]:
    """What each mean has summed so far, for a checkpoint: (sum, count) of each rank, by name.

    Every rank must call it, with the same names; they go on as they are.
    """
    packed = _packed(means, device)
    ranks = [packed]
    if _several_ranks():
        ranks = [torch.empty_like(packed) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(ranks, packed)
    return dict(zip(means, torch.stack(ranks).permute(2, 0, 1).tolist(), strict=True))


def load_state(means: Mapping[str, RunningMean], state: Mapping[str, list[list[float]]], rank: int) -> None:
    """Let the means go on where those of a checkpoint were, see `state_of`; of what it lacks they begin anew.

    Each of as many ranks takes its own sum, so that the mean is the same bit for bit; of another number the
    first takes them all.
    """
    world_size = torch.distributed.get_world_size() if _several_ranks() else 1
    for name, mean in means.items():
        sums = state.get(name, [])
        if len(sums) == world_size:
            sums = [sums[rank]]
        elif rank:
            sums = []
        mean.total, mean.count = sum(total for total, _ in sums), int(sum(count for _, count in sums))


def over_ranks(sums: Tensor) -> Tensor:
    """Sums of all ranks in a tensor of its own; every rank must call it."""
    total = sums.clone()
    if _several_ranks():
        torch.distributed.all_reduce(total)
    return total


def _packed(means: Mapping[str, RunningMean], device: torch.device) -> Tensor:
    """[2, len(means)]: sums and counts. In float32, as the sums are: Apple's GPUs have no float64; counts
    are exact in it up to 2^24 a rank.
    """
    sums = torch.stack(
        [torch.as_tensor(mean.total, device=device, dtype=torch.float32) for mean in means.values()]
    )
    counts = torch.tensor([mean.count for mean in means.values()], device=device, dtype=torch.float32)
    return torch.stack([sums, counts])


def _several_ranks() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


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
