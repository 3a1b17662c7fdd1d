"""Tensors of which every process holds a part: what is done with the parts, and how they become whole."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer

from ddpm.training.checkpoints.layout import mapped


def are_shards(tensors: Sequence[Tensor]) -> bool:
    """Whether every process holds a part of these only. A network is sharded whole, or not at all."""
    return bool(tensors) and isinstance(tensors[0], DTensor)


@torch.no_grad()
def parts(tensors: list[Tensor]) -> list[Tensor]:
    """What this process holds of each, by reference, in order; what is whole is its own part."""
    if not are_shards(tensors):
        return tensors
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def sum_over_parts(values: Tensor, of: Sequence[Tensor]) -> Tensor:
    """The sums of values [N] of the parts of tensors, over the processes that hold the others: one
    collective, and the same numbers on each of them. Every one of them must call it.

    Args:
        values: of the parts of this process.
        of: the tensors.
    """
    first = of[0]
    assert isinstance(first, DTensor)
    dist.all_reduce(values, group=first.device_mesh.get_group())
    return values


@torch.no_grad()
def placed_as(tensor: Tensor, other: Tensor) -> Tensor:
    """A copy of a tensor where another of its shape is: of a whole one the part that this process holds.

    Args:
        tensor: whole, the same on every process; or in parts already.
        other: that says device, memory layout and parts.
    """
    if not isinstance(other, DTensor):
        return torch.empty_like(other, requires_grad=False).copy_(tensor)
    if not isinstance(tensor, DTensor):
        # nothing is sent; the clone lets go of the memory of the whole
        tensor = distribute_tensor(tensor.detach(), other.device_mesh, other.placements, src_data_rank=None)
    return tensor.detach().clone()


@torch.no_grad()
def copy_into(tensor: Tensor, whole: Tensor) -> None:
    """Give a tensor the values of one that every process has whole."""
    tensor.copy_(placed_as(whole, tensor) if isinstance(tensor, DTensor) else whole)


def own_rows(tensor: Tensor) -> Tensor | None:
    """The rows of a tensor that this process holds, by reference; None for one that is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else None


def from_rows(rows: Tensor, shape: torch.Size, devices: DeviceMesh) -> Tensor:
    """A tensor of which every process holds some rows, from those of this one.

    Args:
        rows: on any device.
        shape: of the whole.
        devices: that the parts are on.
    """
    strides = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows, devices, [Shard(0)], run_check=False, shape=shape, stride=strides)


def optimizer_parts(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimizer, in the plain form that checkpoints hold it, in parts as its parameters are.

    Args:
        state: as `Optimizer.state_dict` of whole parameters gives it, the same on every process.
        optimizer: that takes it up.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def part(value: Any, parameter: Tensor) -> Any:
        fits = isinstance(value, Tensor) and value.shape == parameter.shape
        return placed_as(value, parameter) if fits else value

    placed = {
        i: {name: part(value, parameters[i]) for name, value in values.items()}
        for i, values in state["state"].items()
    }
    return {**state, "state": placed}


def gathered(content: Any, *, keep: bool) -> Any:
    """The same containers with whole tensors in the host's memory, nobody else's. Every process must call it,
    with the same containers; one tensor after another is whole on the device.

    Args:
        content: plain containers of tensors.
        keep: whether this process wants them; another gets tensors without values.

    Raises:
        CheckpointError: where there is something that no checkpoint can hold.
    """

    def whole(tensor: Tensor) -> Tensor:
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        return tensor.to("cpu", copy=True) if keep else tensor.new_empty(0)

    return mapped(content, whole)
