"""The devices that a program works on, by the settings of Lightning's trainer."""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ddpm import targets
from ddpm.app.run_directory import number_of_processes
from ddpm.errors import UsageError
from ddpm.training.sharding import FullySharded

log = logging.getLogger(__name__)

KNOWN_TO_IDLE = ("_target_", "accelerator", "devices", "num_nodes")
"""Keys of `trainer` that say which devices there are."""


def strategy(node: Mapping[str, Any]) -> Any:
    """The strategy that a configuration names; Lightning's own choice where it names none.

    Raises:
        UsageError: where it names what is none.
    """
    if not node:
        return "auto"
    made = targets.resolve("strategy", node["_target_"])
    if isinstance(made, type) and not issubclass(made, Strategy):
        raise UsageError(f"strategy: {node['_target_']} is no Lightning strategy")
    return targets.build("strategy", node)


def cluster() -> list[SLURMEnvironment]:
    """SLURM without Lightning's own requeueing, which would write where another job may be writing."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def is_sharded(trainer: Trainer) -> bool:
    """Whether each device will hold a part of the network only, so that all must go through it together."""
    return isinstance(trainer.strategy, FullySharded)


def loading_device(trainer: Trainer) -> torch.device:
    """Where a program loads a network: on this rank's device; one that is to be parted, on the CPU."""
    return torch.device("cpu") if is_sharded(trainer) else trainer.strategy.root_device


def _wait_for(trainer: Trainer, config: Mapping[str, Any]) -> None:
    """Give a strategy that Lightning chose the timeout of the configuration."""
    if not config["strategy"] and isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = timedelta(seconds=config["timeout"])


def check_processes(trainer: Trainer, directory: Path) -> None:
    """Refuse numbers of processes that do not fit each other or the directory.

    Raises:
        UsageError: naming the key.
    """
    processes = number_of_processes()
    if processes > 1 and trainer.world_size != processes:
        raise UsageError(
            f"trainer.devices: {processes} processes were started, and the trainer was told of "
            f"{trainer.world_size}; give trainer.devices=PROCESSES_A_NODE trainer.num_nodes=NODES"
        )
    if trainer.world_size > 1 and processes == 1 and '"' in str(directory):
        raise UsageError(
            f"hydra.run.dir={directory}: several devices cannot work in a path with a quotation mark"
        )


def idle_trainer(config: Mapping[str, Any], directory: Path) -> Trainer:
    """One that knows the devices and trains nothing.

    Raises:
        UsageError: where there are no such devices.
    """
    given = {name: config["trainer"][name] for name in KNOWN_TO_IDLE}
    trainer = built(config, given, directory, logger=False, enable_checkpointing=False)
    check_processes(trainer, directory)
    return trainer


def built(
    config: Mapping[str, Any],
    given: Mapping[str, Any],
    directory: Path,
    *,
    plugins: Sequence[Any] = (),
    enable_progress_bar: bool = False,
    **settings: Any,
) -> Trainer:
    """Lightning's trainer with the strategy of the configuration, on the cluster that there is.

    Args:
        config: checked.
        given: keys of `trainer`, its `_target_` among them.
        directory: of the program.
        plugins: beside that of the cluster.
        enable_progress_bar: whether one of Lightning's is shown.
        settings: of the trainer that no configuration has.

    Raises:
        UsageError: where Lightning refuses them.
    """
    try:
        trainer: Trainer = targets.build(
            "trainer",
            given,
            strategy=strategy(config["strategy"]),
            plugins=[*plugins, *cluster()],
            default_root_dir=str(directory),
            enable_progress_bar=enable_progress_bar,
            enable_model_summary=False,
            **settings,
        )
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"trainer: {error}") from error
    _wait_for(trainer, config)
    return trainer
