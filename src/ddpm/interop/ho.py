"""The U-Net of the paper's own TensorFlow code (Ho et al. 2020): CIFAR-10, LSUN and CelebA-HQ."""

from collections.abc import Mapping

from torch import Tensor

from ddpm.diffusion.objectives import X0, Epsilon, Objective
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Variance
from ddpm.interop.foreign import (
    MOST_BLOCKS,
    MOST_LEVELS,
    Foreign,
    check_count,
    linear,
    multiples,
    network_of,
    process,
    shape,
)
from ddpm.interop.renaming import layers, parameter_names, renamed
from ddpm.interop.told import Told
from ddpm.networks.blocks import Stage
from ddpm.networks.unet import UNet

MARKS = ("temb.dense0.weight", "conv_in.weight", "down_0.block_0.conv1.weight")
"""Weights that no other codebase has under these names, in PyTorch's words for their kinds."""

AVERAGED = "/ExponentialMovingAverage"
KINDS = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
"""TensorFlow's words for what PyTorch calls otherwise."""

STAGE = {
    "block.norm_in": "block.norm1",
    "block.conv_in": "block.conv1",
    "block.time": "block.temb_proj",
    "block.norm_out": "block.norm2",
    "block.conv_out": "block.conv2",
    "block.shortcut": "block.nin_shortcut",
    "attention.norm": "attn.norm",
    "attention.to_out": "attn.proj_out",
}


def states(variables: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The averaged and the raw weights among variables of TensorFlow, under PyTorch's names for their kinds
    and in its order of dimensions; without what belongs to the optimizer.
    """
    averaged: dict[str, Tensor] = {}
    raw: dict[str, Tensor] = {}
    for name, value in variables.items():
        name = name.removesuffix(":0")
        state = averaged if name.endswith(AVERAGED) else raw
        *path, kind = name.removesuffix(AVERAGED).split("/")
        if path[:1] == ["model"] and kind in KINDS:
            weight = value.permute(3, 2, 0, 1) if value.ndim == 4 else value.t() if value.ndim == 2 else value
            state[".".join([*path[1:], KINDS[kind]])] = weight
    return averaged, raw


def ho(weights: Mapping[str, Tensor], told: Told) -> Foreign:
    """A model of the paper's code; told nothing else, of CIFAR-10's configuration where it has four levels
    (fixed-large variance, dropout 0.1, 32x32) and else of LSUN's and CelebA-HQ's (fixed-small, no
    dropout, 256x256).

    Raises:
        ValueError: where it is none, or cannot be expressed.
    """
    levels = len({name.split(".")[0] for name in weights if name.startswith("down_")})
    blocks = sum(name.startswith("down_0.block_") and name.endswith(".conv1.weight") for name in weights)
    check_count("levels", levels, MOST_LEVELS)
    check_count("blocks a level", blocks, MOST_BLOCKS)
    channels, in_channels, *_ = shape(weights, "conv_in.weight", 4)
    widths = [shape(weights, f"down_{i}.block_0.conv2.weight", 4)[0] for i in range(levels)]
    small = levels <= 4
    size = told("image_size", 32 if small else 256)
    objectives: dict[str, type[Objective]] = {"eps": Epsilon, "xstart": X0}
    objective = objectives[told("model_mean_type", "eps", ("eps", "xstart"))]
    variances: dict[str, type[Variance]] = {"fixedlarge": FixedLarge, "fixedsmall": FixedSmall}
    variance = variances[
        told("model_var_type", "fixedlarge" if small else "fixedsmall", ("fixedlarge", "fixedsmall"))
    ]
    network, model = network_of(
        UNet,
        in_channels=in_channels,
        out_channels=in_channels,
        channels=channels,
        multipliers=multiples(widths, channels),
        blocks=blocks,
        attention_levels=[i for i in range(levels) if f"down_{i}.attn_0.q.weight" in weights],
        dropout=told("dropout", 0.1 if small else 0.0),
    )
    assert isinstance(network, UNet)
    steps = told("num_diffusion_timesteps", 1000)
    schedule = linear(steps, told("beta_start", 1e-4), told("beta_end", 0.02))
    names = parameter_names(network, _modules(network))

    def ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return renamed(names, theirs, network, "its weights are no whole network of this kind")

    config = {**process(schedule, variance, objective), "model": model, "clip_x_0": True}
    return Foreign(config, network, (in_channels, size, size), None, ours)


def _modules(network: UNet) -> dict[str, tuple[str, ...]]:
    """Every module of ours and theirs."""
    found = {
        "time.0": ("temb.dense0",),
        "time.2": ("temb.dense1",),
        "conv_in": ("conv_in",),
        "norm_out": ("norm_out",),
        "conv_out": ("conv_out",),
        **_stage("middle.0", "mid", "1"),
        **_stage("middle.1", "mid", "2"),
    }
    last = len(network.multipliers) - 1
    for i, level, index, layer in layers(network.encoder):
        found |= _layer(f"encoder.{i}", f"down_{level}", index, layer, "downsample")
    for i, level, index, layer in layers(network.decoder):
        found |= _layer(f"decoder.{i}", f"up_{last - level}", index, layer, "upsample")
    return found


def _layer(ours: str, theirs: str, index: int, layer: object, resampling: str) -> dict[str, tuple[str, ...]]:
    if isinstance(layer, Stage):
        return _stage(ours, theirs, str(index))
    return {f"{ours}.conv": (f"{theirs}.{resampling}.conv",)}


def _stage(ours: str, theirs: str, index: str) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, their_name in STAGE.items():
        part, _, module = their_name.partition(".")
        found[f"{ours}.{name}"] = (f"{theirs}.{part}_{index}.{module}",)
    return {**found, f"{ours}.attention.to_qkv": tuple(f"{theirs}.attn_{index}.{one}" for one in "qkv")}
