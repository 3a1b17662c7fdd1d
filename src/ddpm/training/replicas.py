"""Replicas of the network, which share gradients by DDP: in which order, and how long a step waits for it."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.nn.parallel import DistributedDataParallel


def plan(trainer: Any, images: int) -> None:
    """Let torch plan before the first step in which buckets gradients are summed. Every rank must call it.

    torch puts them into others behind the first backward pass, as it has seen by then in which order they
    come. Of more than two ranks the order of a sum depends on its place in a bucket. So a run that goes on,
    whose first step is another one, would differ in rounding from one that was never stopped. Here the first
    backward pass is one of nothing, and all steps are summed alike.

    Args:
        trainer: of the run, in front of its first batch.
        images: of that batch; a compiled network would be compiled anew for another number.
    """
    model = _replica(trainer)
    if model is None or trainer.world_size < 3:
        return
    module = trainer.lightning_module
    zeros = torch.zeros(images, *module.image_shape, device=module.device)
    t = torch.zeros(images, dtype=torch.int64, device=module.device)
    conditions = () if module.classes is None else (t,)
    inputs = module.parametrization.network_inputs(module.schedule, zeros, t)
    buffers = [(buffer, buffer.clone()) for buffer in module.network.buffers()]
    for _ in range(2 if model.static_graph else 1):
        with trainer.precision_plugin.forward_context():
            output = model(*inputs, *conditions)
        beside = sum(parameter.sum() for parameter in module.parameters_beside_network)
        ((output.float().sum() + beside) * 0).backward()
    for parameter in module.parameters():
        parameter.grad = None
    for buffer, before in buffers:  # such as the running means of a batch normalisation
        buffer.copy_(before)


def take_times(trainer: Any) -> None:
    """Have torch take the times of a step in each row of scalars; it does so for the first ten anyway."""
    if (model := _replica(trainer)) is not None and trainer.log_every_n_steps:
        model._set_ddp_runtime_logging_sample_rate(trainer.log_every_n_steps)


def seconds_waited(trainer: Trainer) -> float | None:
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
