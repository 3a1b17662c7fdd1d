"""How many micro-batches the step of a run is computed in: what `data.micro_batch` asks for."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from ddpm.app.devices import idle_trainer
from ddpm.app.run_directory import Place
from ddpm.app.same_run import accumulated
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.runtime.memory import GIB, free_memory
from ddpm.training.launching import leaders_accumulation
from ddpm.training.micro_batch import Room, largest
from ddpm.training.module import DDPM


def accumulating(
    config: Mapping[str, Any], place: Place, module: DDPM, data: ImageDataModule, begun: int | None
) -> dict[str, Any]:
    """The configuration with the `trainer.accumulate_grad_batches` that follows from `data.micro_batch`; as
    it is where that is null.

    A run that goes on has the number that it was begun with, and a rank that of the process that started it.

    Args:
        config: of the run, checked.
        place: of the run.
        module: of the run, on the CPU.
        data: of the run.
        begun: the number that the run which goes on was begun with; None for one that begins.

    Raises:
        UsageError: where no micro-batch is small enough.
    """
    if config["data"].get("micro_batch") is None:
        return dict(config)
    number = begun or leaders_accumulation()
    if number is None:
        number = _chosen(config["data"]["micro_batch"], idle_trainer(config, place.directory), module, data)
    return accumulated(config, number)


def _chosen(asked: int | str, trainer: Trainer, module: DDPM, data: ImageDataModule) -> int:
    """The least number of micro-batches of which none is larger than asked for."""
    try:
        data.check_shared(world_size=trainer.world_size, accumulation=1)
    except ValueError as error:
        raise UsageError(str(error)) from error
    share = data.batch_size // trainer.world_size
    sizes = [
        share // number for number in range(1, share + 1) if _is_shared(data, trainer.world_size, number)
    ]
    if asked == "auto":
        return share // _largest(sizes, trainer, module, data)
    if not (fitting := [size for size in sizes if size <= int(asked)]):
        raise UsageError(
            f"data.micro_batch={asked}: data.lanes allows no micro-batch below {sizes[-1]}; use "
            f"data.micro_batch={sizes[-1]}, or more data.lanes, which changes the order of the images"
        )
    return share // fitting[0]


def _is_shared(data: ImageDataModule, world_size: int, accumulation: int) -> bool:
    try:
        data.check_shared(world_size=world_size, accumulation=accumulation)
    except ValueError:
        return False
    return True


def _largest(sizes: list[int], trainer: Trainer, module: DDPM, data: ImageDataModule) -> int:
    """The largest of the sizes that this device has memory for."""
    device = trainer.strategy.root_device
    is_sharded = isinstance(trainer.strategy, ModelParallelStrategy)
    room = Room(
        device,
        taken=data.bytes_on(device) or 0,
        processes=trainer.num_devices if device.type == "cpu" else 1,
        shards=trainer.world_size if is_sharded else 1,
    )
    if (found := largest(module, sizes, room)) is None:
        raise UsageError(
            f"data.micro_batch=auto: a micro-batch of {sizes[-1]} does not fit into the "
            f"{free_memory(device) / GIB:.1f} GiB of the {device.type.upper()}; use a smaller model or "
            "smaller images"
        )
    return found
