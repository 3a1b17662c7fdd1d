"""A whole module from its configuration: as a run begins, and again from a checkpoint."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ddpm import targets
from ddpm.diffusion import NoiseSchedule
from ddpm.diffusion.variances import Variance
from ddpm.errors import UsageError
from ddpm.migration import migrated
from ddpm.training.ema import NoAverage
from ddpm.training.module import DDPM
from ddpm.training.optimizers import make_optimizer
from ddpm.training.outline import outlined

Config = Mapping[str, Any]

PARTS = (
    "schedule", "objective", "variance", "weighting", "timesteps", "model", "sampler", "guidance",
    "optimizer", "lr_schedule", "ema",
)  # fmt: skip
"""Groups of a configuration that a module is built from."""

COMPUTED = ("compile", "channels_last", "cuda_graphs")
"""Keys of `model` that say how it is computed, which its constructor does not know."""

OF_LEVELS = ("VariationalBound", "Hybrid")
"""Weightings whose term at t = 0 is the decoder of 8-bit images (Ho et al. 2020, eq. 13)."""

MOST_NUMBERS = 1 << 26
"""Of an image in a checkpoint: 4,096 x 4,096 in colour is below it."""

MOST_STEPS = 1_000_000
"""Of a noise schedule in a checkpoint, each of which takes about 150 bytes."""


def build_module(
    config: Config,
    data: Mapping[str, Any],
    *,
    weights: Mapping[str, Any] | None = None,
    to_train: bool = True,
    **arguments: Any,
) -> DDPM:
    """The module that a configuration describes, its weights keyed by the seed.

    Args:
        config: plain containers, with every group of `PARTS`; `lr_schedule` and `ema` may be None.
        data: the data set: `image_shape` [C, H, W] and `classes`, names or None; if it has `understood`, why.
        weights: state of the network that it must be; None for any.
        to_train: whether it is to be trained; else a loss that these data have not is none of its business.
        arguments: of the constructor, in place of what the configuration says.

    Raises:
        UsageError: where the configuration cannot be built.
    """
    image_shape = tuple(data["image_shape"])
    classes = data["classes"] if config["conditional"] else None
    if config["conditional"] and not classes:
        said = (line.removeprefix("classes: none") for line in data.get("understood") or ())
        why = next((reason for reason in said if reason.startswith(" (")), "")
        raise UsageError(f"conditional=true: these images have no classes{why}; use conditional=false")
    if data.get("latents"):
        _check_latents(config, to_train)
    elif to_train and not config["weighting"].get("levels", True):
        raise UsageError(
            "weighting.levels=false: is for latents; images have 256 levels, at which a density has no bound"
        )
    names = ("schedule", "objective", "variance", "weighting", "timesteps", "sampler", "guidance")
    parts = {name: targets.build(name, config[name]) for name in names}
    parts |= {
        name: _waiting(name, node)
        for name in ("optimizer", "lr_schedule", "ema")
        if (node := config.get(name)) is not None
    }
    parts.setdefault("ema", NoAverage)
    parts |= arguments
    _try(parts["optimizer"], parts.get("lr_schedule"), parts["ema"])
    schedule: NoiseSchedule = parts.pop("schedule")
    condition = data.get("condition") or {}
    sizes = condition.get("image_channels", 0), condition.get("vector_size", 0)
    network = build_network(config, image_shape, parts["variance"], classes, weights, condition=sizes)
    settings = {
        "classes": classes,
        "label_drop": config.get("data", {}).get("label_drop", 0.0),
        "condition_channels": sizes[0],
        "vector_size": sizes[1],
        "condition_drop": config.get("data", {}).get("condition_drop", 0.0),
        "clip_x_0": config["clip_x_0"],
        "seed": config["seed"],
        "on_nonfinite": config.get("on_nonfinite", "stop"),
        "config": dict(config),
        "data": dict(data),
    }
    try:
        return DDPM(network, schedule, **{"image_shape": image_shape, **settings, **parts})
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def build_network(
    config: Config,
    image_shape: tuple[int, ...],
    variance: Variance,
    classes: Sequence[str] | None,
    weights: Mapping[str, Any] | None = None,
    *,
    condition: tuple[int, int] = (0, 0),
) -> nn.Module:
    """The network for images of this shape and these classes, its weights keyed by the seed.

    Args:
        config, image_shape, variance, classes: what it is built for.
        weights: a state that it must be the network of, before memory is taken for it; None for any.
        condition: channels of the image and numbers of the vector that it is conditioned on.

    Raises:
        UsageError: where the images or the weights do not fit the network.
    """
    node = {name: value for name, value in config["model"].items() if name not in COMPUTED}
    channels, height, width = image_shape
    arguments = {"in_channels": channels + condition[0], "out_channels": channels * (1 + variance.outputs)}
    if classes is not None:
        arguments["num_classes"] = len(classes)
    if condition[1]:
        arguments["vector_size"] = condition[1]
    outline = outlined(lambda: targets.build("model", node, **arguments), weights)
    multiple = getattr(outline, "size_multiple", 1)
    if height % multiple or width % multiple:
        sizes = sorted({max(multiple, size // multiple * multiple) for size in (height, height + multiple)})
        raise UsageError(
            f"data.image_size: images of {height}x{width} cannot be halved as often as model has levels; "
            f"use a size that {multiple} divides, such as {' or '.join(map(str, sizes))}, or fewer "
            "model.multipliers"
        )
    torch.manual_seed(config["seed"])
    network: nn.Module = targets.build("model", node, **arguments)
    return network


def rebuild(
    checkpoint: Mapping[str, Any], allow_targets: Sequence[str] = (), *, strict: bool = True, **arguments: Any
) -> DDPM:
    """The module of a checkpoint, with its weights and their average, on the CPU.

    Args:
        checkpoint: as `ddpm.training.checkpoints` reads it.
        allow_targets: packages, beside ours and the libraries', that its configuration may build from.
        strict: whether its weights must be those of the network, all of them.
        arguments: of the constructor, in place of what its configuration says.

    Raises:
        UsageError: where its configuration cannot be built.
        RuntimeError, KeyError: where its weights are not those of its network.
    """
    config = migrated(checkpoint["config"])
    targets.check_names("", {name: config.get(name) for name in PARTS}, allow_targets)
    _check_sizes(config, checkpoint["data"])
    weights = {
        name.removeprefix("network."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("network.")
    }
    given = weights if strict else None
    module = build_module(config, checkpoint["data"], weights=given, to_train=False, **arguments)
    module.on_load_checkpoint(dict(checkpoint))
    module.load_state_dict(checkpoint["state_dict"], strict=strict)
    return module


def _check_sizes(config: Config, data: Mapping[str, Any]) -> None:
    """Refuse sizes that a checkpoint states beside its weights, and that memory would be taken for.

    Raises:
        UsageError: where one is missing, or beyond what anybody trains on.
    """
    for group in PARTS:
        if group not in config and group not in ("lr_schedule", "ema"):
            raise UsageError(f"{group}: is missing from its configuration")
    shape = data.get("image_shape")
    if not (
        isinstance(shape, list | tuple)
        and len(shape) == 3
        and all(type(size) is int and size > 0 for size in shape)
        and math.prod(shape) <= MOST_NUMBERS
    ):
        raise UsageError(f"data.image_shape={str(shape)[:60]}: must be three sizes, [C, H, W], of an image")
    steps = config["schedule"].get("num_timesteps", 0)
    if type(steps) is not int or steps > MOST_STEPS:
        raise UsageError(f"schedule.num_timesteps={str(steps)[:20]}: must be at most {MOST_STEPS}")


def _check_latents(config: Config, to_train: bool) -> None:
    """Refuse, with UsageError, what is for images in [-1, 1] of 256 levels."""
    if config["clip_x_0"]:
        raise UsageError(
            f"clip_x_0={str(config['clip_x_0']).lower()}: latents are not within [-1, 1], and sampling must "
            "not clip them; use clip_x_0=false, as data=latents has it"
        )
    kind = str(config["weighting"].get("_target_", "")).rpartition(".")[2]
    if to_train and kind in OF_LEVELS and config["weighting"].get("levels", True):
        raise UsageError(
            f"weighting: {kind} has the likelihood of 256 levels of brightness in it, which latents do not "
            "have; use weighting.levels=false, which has that of a density in its place, or weighting=simple"
        )


def _waiting(key: str, node: Mapping[str, Any]) -> Any:
    """What a node names, waiting for its first argument."""
    return targets.build(key, {**node, "_partial_": True})


def _try(optimizer: Any, lr_schedule: Any, ema: Any) -> None:
    """Make what would be made when training begins, of one parameter, so that a mistake is told now."""
    for key, make in (
        ("ema", lambda: ema(nn.Linear(1, 1))),
        ("optimizer", lambda: make_optimizer(optimizer, [nn.Parameter(torch.zeros(1))])),
        ("lr_schedule", lambda: lr_schedule and lr_schedule(torch.optim.SGD([nn.Parameter(torch.zeros(1))]))),
    ):
        try:
            make()
        except (TypeError, ValueError, RuntimeError) as error:
            message = str(error).splitlines()[0]
            raise UsageError(message if message.startswith(key) else f"{key}: {message}") from error
