"""Training in which no device holds the whole network: FSDP2, through Lightning's ModelParallelStrategy."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed import PrefixStore
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.distributed_c10d import _get_default_store, default_pg_timeout
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.optim import Optimizer

from ddpm.training.checkpoints import AtomicCheckpointIO, CheckpointError, load_rows, parts
from ddpm.training.ending import TrainingError
from ddpm.training.shards import from_rows, gathered, optimizer_parts, own_rows, placed_as

CHECKPOINTS = ("whole", "sharded")
"""What is written: one file, or one of each process."""

COMPUTED_IN = {"32-true": None, "bf16-mixed": torch.bfloat16}
"""What parameters are gathered as, by the precisions that there are: None for what they are, float32."""


class FullySharded(ModelParallelStrategy):
    """Every device of the run holds a part of each parameter, its gradient, its average and the optimizer's
    state, and gathers the parameters of a block as long as that block is computed.

    Checkpoints are read and written by the trainer's CheckpointIO. Whole ones are the same files as those of
    any other strategy: the first process gathers one tensor after another into its host's memory. Of those in
    parts each process writes what it holds.

    Args:
        checkpoint: whole or sharded.
        timeout: of its collectives.
        process_group_backend: gloo for CPUs and nccl for GPUs by default.
    """

    def __init__(
        self,
        checkpoint: str = "whole",
        timeout: timedelta = timedelta(minutes=30),
        process_group_backend: str | None = None,
    ) -> None:
        if checkpoint not in CHECKPOINTS:
            raise ValueError(f"checkpoint={checkpoint}: must be one of {', '.join(CHECKPOINTS)}")
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )
        self.saves_parts = checkpoint == "sharded"

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def setup_environment(self) -> None:
        """Make the processes known to each other, once: a run may train more than one time."""
        if self.saves_parts and type(self.checkpoint_io) is TorchCheckpointIO:  # as nobody has chosen one
            self.checkpoint_io = AtomicCheckpointIO()
        mesh = self._device_mesh
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()
        if mesh is not None:
            self._device_mesh = mesh
            assert self.lightning_module is not None
            self.lightning_module._device_mesh = mesh

    @property
    def shards(self) -> DeviceMesh:
        """The devices that hold the parts, all of the run."""
        return self.device_mesh["data_parallel"]

    # Checkpoints: plain names, whole tensors or those of this process, by the trainer's own CheckpointIO

    def lightning_module_state_dict(self) -> dict[str, Any]:
        assert self.lightning_module is not None
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return super(ModelParallelStrategy, self).optimizer_state(optimizer)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint: the first process, which gathers it, or each its part. Every one must call it.

        Raises:
            TrainingError: where it holds what no checkpoint can, or must not be written.
        """
        writer, leads = self.checkpoint_io, self.is_global_zero
        if self.saves_parts:
            if not isinstance(writer, AtomicCheckpointIO):
                raise TrainingError(
                    f"checkpoint=sharded: {type(writer).__name__} writes whole files; give the trainer "
                    "plugins=[AtomicCheckpointIO()] of ddpm.training.checkpoints, or none of that kind"
                )
            try:
                head, part = parts.split(checkpoint, own_rows)
            except CheckpointError as error:
                raise TrainingError(str(error)) from error
            writer.save_part(head, part, Path(filepath), self._together())
            return
        if leads and isinstance(writer, AtomicCheckpointIO):
            writer.wait()  # one checkpoint at a time is in the host's memory
        try:
            whole = gathered(checkpoint, keep=leads)
        except CheckpointError as error:
            raise TrainingError(str(error)) from error
        if not leads:
            return
        if isinstance(writer, AtomicCheckpointIO):
            writer.save_own(whole, Path(filepath))
        else:
            writer.save_checkpoint(whole, filepath, storage_options=storage_options)

    def _together(self) -> parts.Together:
        """All processes, for one checkpoint."""
        name = self.broadcast(secrets.token_hex(8))
        store = None
        if self.world_size > 1:
            own: Any = _get_default_store()  # torch's type hints do not know its `clone`, for another thread
            store = PrefixStore(f"ddpm/checkpoint/{name}", own.clone())
        seconds = (self._timeout or default_pg_timeout).total_seconds()
        return parts.Together(self.global_rank, self.world_size, store, seconds)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        writer = self.checkpoint_io
        if not isinstance(writer, AtomicCheckpointIO):
            return super(ModelParallelStrategy, self).load_checkpoint(checkpoint_path, weights_only)
        writer.wait()
        shards = self.shards
        return load_rows(
            Path(checkpoint_path),
            shards.get_local_rank(),
            shards.size(),
            lambda rows, shape: from_rows(rows, shape, shards),
        )

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        ours = self.lightning_module.state_dict()
        theirs = {
            name: placed_as(value, ours[name]) if name in ours and value.shape == ours[name].shape else value
            for name, value in checkpoint["state_dict"].items()
        }
        self.lightning_module.load_state_dict(theirs, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=False):
            optimizer.load_state_dict(optimizer_parts(state, optimizer))

    def teardown(self) -> None:
        super().teardown()
        self.checkpoint_io.teardown()


def shard(network: nn.Module, devices: DeviceMesh, precision: str) -> None:
    """Let every device hold a part of each parameter only, block by block. Every process must call it.

    Its parameters are others afterwards, under the same names: whoever refers to one has to look again.

    Args:
        network: on the CPU, the same on every process.
        devices: that the parts are on.
        precision: of the training, one of `COMPUTED_IN`.

    Raises:
        ValueError: for a precision or a parameter that cannot be sharded.
    """
    if precision not in COMPUTED_IN:
        raise ValueError(
            f"precision={precision}: strategy=fsdp trains in {' or '.join(COMPUTED_IN)}, whose gradients "
            "need no scale"
        )
    for name, parameter in network.named_parameters():
        if parameter.ndim == 0:
            raise ValueError(f"model: {name} is a single number, which cannot be sharded; make it a vector")
        parameter.data = parameter.data.contiguous()  # parts are runs of memory
    # inputs keep their type: what is computed in which one is for autocast to say, as everywhere
    policy = MixedPrecisionPolicy(
        param_dtype=COMPUTED_IN[precision], reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    units: list[list[nn.Module]] = [[block] for block in (*blocks(network), network)]
    apart: Any = getattr(network, "applied_together", None)  # layers of its blocks, called before them
    if apart:
        units.insert(0, list(apart))
    for unit in units:
        fully_shard(unit, mesh=devices, reshard_after_forward=True, mp_policy=policy)


def blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: what stands in its lists of modules, not within another block. Where there is
    none the network is one block.
    """
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from blocks(child)


@torch.no_grad()
def begin_alike(tensors: Iterable[Tensor], devices: DeviceMesh) -> None:
    """Give every process the values of the first, one whole tensor after another. Every one must call it."""
    if devices.size() == 1:
        return
    for tensor in tensors:
        sent = tensor.detach().to(devices.device_type)
        torch.distributed.broadcast(sent, src=0)
        tensor.copy_(sent)


def without_inference_mode(network: nn.Module, *inputs: Any, **named: Any) -> Any:
    """The output of a sharded network, which must not gather in inference mode: the memory that it gathers
    into is used again, and training could not use it any more.
    """
    if not torch.is_inference_mode_enabled():
        return network(*inputs, **named)
    with torch.inference_mode(False), torch.no_grad():
        return network(*inputs, **named)
