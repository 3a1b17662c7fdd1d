"""How long a step waits for the gradients of other ranks, beyond what goes on beside its own arithmetic."""

from typing import Any

from lightning.pytorch import Trainer
from torch.nn.parallel import DistributedDataParallel


def begin(trainer: Any) -> None:
    """Have torch take the times of a step in each row of scalars; it does so for the first ten anyway."""
    if (model := _replica(trainer)) is not None and trainer.log_every_n_steps:
        model._set_ddp_runtime_logging_sample_rate(trainer.log_every_n_steps)


def seconds_a_step(trainer: Trainer) -> float | None:
    """Of the last step whose times were taken; None where ranks do not share gradients by DDP.

    torch says how long the gradients were on their way, and how much of that the backward pass went on.
    """
    if (model := _replica(trainer)) is None:
        return None
    times = model._get_ddp_logging_data()
    on_their_way, beside = (
        times.get(name) for name in ("backward_comm_time", "backward_compute_comm_overlap_time")
    )
    if on_their_way is None or beside is None:  # before the first step
        return None
    return max(0.0, (on_their_way - beside) * 1e-9)


def _replica(trainer: Trainer) -> Any:
    """The model as DDP wraps it, whose times torch calls a prototype; or None."""
    model = trainer.strategy.model
    return model if isinstance(model, DistributedDataParallel) and model.logger is not None else None
