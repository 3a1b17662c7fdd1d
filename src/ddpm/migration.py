"""Runs and checkpoints of version 0.1 and later: where their keys and targets went."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ddpm import signatures
from ddpm.errors import UsageError
from ddpm.options import option


class Split(NamedTuple):
    """What has become of an optimizer that held a learning-rate schedule.

    Attributes:
        optimizer: its class now.
        lr_schedule: the option that moves the rate.
        settings: what it had where nothing was said, and is not so by default now.
        moved: keys that belong to the learning-rate schedule.
    """

    optimizer: str
    lr_schedule: str
    settings: Mapping[str, Any]
    moved: tuple[str, ...]


ADAM = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "fused": True}

OPTIMIZERS = {
    "ddpm.training.optimizers.adam": Split(
        "torch.optim.Adam", "warmup", {"lr": 2e-4, **ADAM}, ("warmup_steps",)
    ),
    "ddpm.training.optimizers.adam_one_cycle": Split(
        "torch.optim.Adam", "one_cycle", {"lr": 2e-3, **ADAM}, ("total_steps", "warmup_fraction")
    ),
}

TARGETS = {
    "ddpm.training.checkpoints.Checkpoints": "ddpm.training.callbacks.checkpoints.Checkpoints",
    "ddpm.training.grids.SampleGrids": "ddpm.training.callbacks.samples.SampleGrids",
    "ddpm.training.progress.TrainingProgress": "ddpm.training.callbacks.progress.TrainingProgress",
    "ddpm.training.strategies.auto": None,
    "ddpm.data.archive.Archive": "ddpm.data.sources.archive.Archive",
    "ddpm.data.digits.Digits": "ddpm.data.sources.digits.Digits",
    "ddpm.data.folder.Folder": "ddpm.data.sources.folder.Folder",
    "ddpm.data.hub.Hub": "ddpm.data.sources.hub.Hub",
    "ddpm.data.npz.Npz": "ddpm.data.sources.arrays.Arrays",
    "ddpm.data.sources.npz.Npz": "ddpm.data.sources.arrays.Arrays",
    "ddpm.data.stream.Stream": "ddpm.data.sources.shard_stream.ShardStream",
}
"""Classes and functions that moved; None for what is no object any more."""

BESIDE: dict[str, dict[str, Any]] = {
    "ddpm.training.grids.SampleGrids": {"final": True},
    **{
        f"ddpm.data.{source}": {"horizontal_flip": True}
        for source in ("archive.Archive", "folder.Folder", "hub.Hub", "npz.Npz", "stream.Stream")
    },
}
"""What they did where nothing was said, and do not by default now."""

GONE = (
    "is of version 0.1, and this version has nothing like it, so the run cannot be read; the code that its "
    "run.json names under git still can"
)

MOVED = {
    "ema_decay": "ema.decay",
    "device": "trainer.accelerator with trainer.devices, such as trainer.accelerator=gpu trainer.devices=[1]",
    "precision": "trainer.precision",
    "data.train_split": "data.split",
    **{
        f"optimizer.{key}": f"lr_schedule.{key}, of lr_schedule={split.lr_schedule}"
        for split in OPTIMIZERS.values()
        for key in split.moved
    },
    **{
        f"logger.{key}": f"logger.wandb.{key}"
        for key in ("mode", "project", "name", "group", "tags", "entity")
    },
}
"""Keys that a person may still type, with the new ones."""

RENAMED = {"ddpm.data.sources.hub.Hub": {"train_split": "split"}}
"""Settings of a class that are called otherwise now; runs of later versions than 0.1 have them too."""

NEW: dict[str, Any] = {
    "tags": [],
    "resume": "auto",
    "checkpoint": "whole",
    "on_nonfinite": "stop",
    "timeout": 1800.0,
    "requeue": False,
    "verbose": "normal",
}
"""Keys at the top that earlier configurations do not have, with what stands for saying nothing."""

NEW_OF_DATA: dict[str, Any] = {"condition": None, "condition_drop": 0.0}
"""The same of `data`, in those that say how images become batches."""

ALWAYS = {"to_x_0": True}
"""Settings of samplers that can be no other way now."""


def migrated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the names of today; one that has them already comes back as it is.

    Args:
        config: of a run or a checkpoint, plain containers.

    Raises:
        UsageError: where it names something of version 0.1 that there is no more.
    """
    if "ema_decay" not in config:  # every configuration of version 0.1 says it
        new = NEW if "trainer" in config else {}
        result = {**new, **{name: _of_today(value) for name, value in config.items()}}
        if "label_drop" in (result.get("data") or {}):
            result["data"] = {**NEW_OF_DATA, **result["data"]}
        return result
    result = {name: value for name, value in config.items() if name != "ema_decay"}
    result["ema"] = {**option("ema", "exponential"), "decay": config["ema_decay"]}
    if "optimizer" in config:
        result["optimizer"], result["lr_schedule"] = _split(config["optimizer"])
    if "_target_" in (config.get("logger") or {}):
        result["logger"] = {"wandb": config["logger"]}
    if "trainer" in config:
        result = {**NEW, **result, "trainer": {**option("trainer", "default"), **config["trainer"]}}
    return {name: _renamed(name, value) for name, value in result.items()}


def _split(node: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An optimizer, and how its rate moves. One of a person's own package held its schedule in itself."""
    split = OPTIMIZERS.get(node["_target_"])
    if split is None:
        return dict(node), option("lr_schedule", "constant")
    kept = {name: value for name, value in node.items() if name not in ("_target_", *split.moved)}
    moved = {name: value for name, value in node.items() if name in split.moved}
    return (
        {"_target_": split.optimizer, **split.settings, **kept},
        {**option("lr_schedule", split.lr_schedule), **moved},
    )


def _renamed(key: str, node: Any) -> Any:
    """A node with the targets of today, however deep."""
    if isinstance(node, list):
        return [_renamed(f"{key}[{index}]", child) for index, child in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    settings = {name: _renamed(f"{key}.{name}", value) for name, value in node.items() if name not in ALWAYS}
    for name in ALWAYS.keys() & node.keys():
        if node[name] != ALWAYS[name]:
            raise UsageError(f"{key}.{name}={node[name]}: {GONE}")
    target = node.get("_target_")
    if not isinstance(target, str):
        return settings
    if target in TARGETS:
        moved = TARGETS[target]
        if moved is None:
            return {}
        return _of_today({**BESIDE.get(target, {}), **settings, "_target_": moved})
    if target.startswith("ddpm."):
        try:
            signatures.read(target)
        except LookupError:
            raise UsageError(f"{key}._target_={target}: {GONE}") from None
    return _of_today(settings)


def _of_today(node: Any) -> Any:
    """What builds one object, with the class and the settings of today; whatever else as it is."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        return node
    moved = TARGETS.get(target) or target
    names = RENAMED.get(moved, {})
    result = {names.get(name, name): value for name, value in {**node, "_target_": moved}.items()}
    if "train_split" in node and isinstance(part := node.get("validation_split"), str):
        result["validation_split"] = f"{part}|none"  # it then meant a share where there was no such part
    return result
