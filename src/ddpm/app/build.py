"""From a checked configuration to the objects of an experiment."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from ddpm.app.check import SWITCHES
from ddpm.data.module import ImageDataModule
from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.variances import Variance
from ddpm.errors import UsageError
from ddpm.training.module import DDPM

Config = Mapping[str, Any]


def build(config: Config, group: str, /, **arguments: Any) -> Any:
    """Build what a group's configuration names, with further arguments.

    Raises:
        UsageError: where the constructor refuses its arguments.
    """
    switches = SWITCHES.get(group, ())
    settings = {name: value for name, value in config[group].items() if name not in switches}
    waits = settings.pop("_partial_", False)
    try:
        # a partial first, so that Hydra leaves the further arguments as they are
        make = instantiate({**settings, "_partial_": True}, _convert_="all")
        return partial(make, **arguments) if waits else make(**arguments)
    except (InstantiationException, TypeError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        message = str(cause or error).splitlines()[0]
        raise UsageError(message if message.startswith(group) else f"{group}: {message}") from error


def build_data(config: Config) -> ImageDataModule:
    """The data module over the source that `data` names, its images read.

    Raises:
        UsageError: where there are no images.
    """
    source = build(config, "data")
    settings = {name: config["data"][name] for name in SWITCHES["data"] if name in config["data"]}
    try:
        data = ImageDataModule(source, seed=config["seed"], **settings)
        _ = data.data_set
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    return data


def describe(data: ImageDataModule) -> dict[str, Any]:
    """The data set in plain containers, as checkpoints and run.json keep it."""
    return {
        "image_shape": list(data.image_shape),
        "classes": None if data.data_set.classes is None else list(data.data_set.classes),
        "num_train": len(data.data_set.train),
        "num_validation": len(data.data_set.validation),
        "fingerprint": data.fingerprint,
        "facts": dict(data.facts),
    }


def build_network(
    config: Config, image_shape: tuple[int, int, int], variance: Variance, classes: Sequence[str] | None
) -> nn.Module:
    """The network for pictures of this shape and these classes, its weights keyed by the seed.

    Raises:
        UsageError: where the pictures do not fit the network.
    """
    channels, height, width = image_shape
    arguments = {"in_channels": channels, "out_channels": channels * (1 + variance.outputs)}
    if classes is not None:
        arguments["num_classes"] = len(classes)
    with torch.device("meta"):  # costs nothing, so that a mistake is told before a large network is made
        multiple = getattr(build(config, "model", **arguments), "size_multiple", 1)
    if height % multiple or width % multiple:
        sizes = sorted({max(multiple, size // multiple * multiple) for size in (height, height + multiple)})
        raise UsageError(
            f"data.image_size: pictures of {height}x{width} cannot be halved as often as model has levels; "
            f"use a "
            f"size that {multiple} divides, such as {' or '.join(map(str, sizes))}, or fewer "
            f"model.multipliers"
        )
    torch.manual_seed(config["seed"])
    return build(config, "model", **arguments)


def build_module(config: Config, data: Mapping[str, Any]) -> DDPM:
    """The LightningModule for a data set described by `describe`.

    Raises:
        UsageError: where the configuration cannot be built.
    """
    schedule: NoiseSchedule = build(config, "schedule")
    variance: Variance = build(config, "variance")
    image_shape = tuple(data["image_shape"])
    classes = data["classes"] if config["conditional"] else None
    if config["conditional"] and not classes:
        raise UsageError("conditional=true: these pictures have no classes; use conditional=false")
    parts = {
        name: build(config, name)
        for name in ("objective", "weighting", "timesteps", "sampler", "guidance", "optimizer")
    }
    try:
        parts["optimizer"](parameters=[nn.Parameter(torch.zeros(1))])  # it would be made when training begins
    except (TypeError, ValueError) as error:
        message = str(error).splitlines()[0]
        raise UsageError(message if message.startswith("optimizer") else f"optimizer: {message}") from error
    network = build_network(config, image_shape, variance, classes)
    try:
        return DDPM(
            network,
            schedule,
            variance=variance,
            **parts,
            image_shape=image_shape,
            classes=classes,
            label_drop=config.get("data", {}).get("label_drop", 0.0),
            ema_decay=config["ema_decay"],
            clip_x_0=config["clip_x_0"],
            seed=config["seed"],
            config=dict(config),
            data=dict(data),
        )
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
