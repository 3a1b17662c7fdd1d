"""The U-Net of pytorch-ddpm (w86763777), a PyTorch reproduction of the paper's CIFAR-10 run."""

from collections.abc import Mapping

import torch
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
from ddpm.networks.inputs import sinusoids
from ddpm.networks.unet import UNet

TABLE = "time_embedding.timembedding.0.weight"
"""[T, channels]: sinusoids of every timestep, sines and cosines in turn, which are never trained."""

MARKS = (TABLE, "head.weight", "downblocks.0.block1.0.weight", "tail.2.weight")
"""Weights that no other codebase has under these names."""

STAGE = {
    "block.norm_in": "block1.0",
    "block.conv_in": "block1.2",
    "block.time": "temb_proj.1",
    "block.norm_out": "block2.0",
    "block.conv_out": "block2.3",
    "block.shortcut": "shortcut",
    "attention.norm": "attn.group_norm",
    "attention.to_out": "attn.proj",
}
QKV = ("attn.proj_q", "attn.proj_k", "attn.proj_v")


def pytorch_ddpm(weights: Mapping[str, Tensor], told: Told) -> Foreign:
    """A model of pytorch-ddpm; told nothing else, of its CIFAR-10 configuration.

    Raises:
        ValueError: where it is none, or cannot be expressed.
    """
    steps, channels = shape(weights, TABLE, 2)
    down = {name.split(".")[1] for name in weights if name.startswith("downblocks.")}
    halving = sum(name.startswith("downblocks.") and name.endswith(".main.weight") for name in weights)
    levels = halving + 1
    blocks, rest = divmod(len(down) - halving, levels)
    if rest:
        raise ValueError(f"{len(down)} downblocks are no whole number of blocks on {levels} levels")
    check_count("levels", levels, MOST_LEVELS)
    check_count("blocks a level", blocks, MOST_BLOCKS)
    begins = [f"downblocks.{level * (blocks + 1)}" for level in range(levels)]
    widths = [shape(weights, f"{name}.block2.3.weight", 4)[0] for name in begins]
    in_channels = shape(weights, "head.weight", 4)[1]
    objectives: dict[str, type[Objective]] = {"epsilon": Epsilon, "xstart": X0}
    objective = objectives[told("mean_type", "epsilon", ("epsilon", "xstart"))]
    variances: dict[str, type[Variance]] = {"fixedlarge": FixedLarge, "fixedsmall": FixedSmall}
    variance = variances[told("var_type", "fixedlarge", ("fixedlarge", "fixedsmall"))]
    size = told("img_size", 32)
    network, model = network_of(
        UNet,
        in_channels=in_channels,
        out_channels=in_channels,
        channels=channels,
        multipliers=multiples(widths, channels),
        blocks=blocks,
        attention_levels=[i for i, name in enumerate(begins) if f"{name}.attn.proj.weight" in weights],
        symmetric_padding=True,
        dropout=told("dropout", 0.1),
        norm_eps=1e-5,
        freq_shift=0,
    )
    assert isinstance(network, UNet)
    schedule = linear(steps, told("beta_1", 1e-4), told("beta_T", 0.02))
    names = parameter_names(network, _modules(network))

    def ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = dict(theirs)
        _check_table(given.pop(TABLE), steps, channels)
        state = renamed(names, given, network, "its weights are no whole network of this kind")
        turned = state["time.0.weight"]
        state["time.0.weight"] = torch.cat([turned[:, 0::2], turned[:, 1::2]], dim=1)
        return state

    config = {**process(schedule, variance, objective), "model": model, "clip_x_0": True}
    return Foreign(config, network, (in_channels, size, size), None, ours)


def _check_table(table: Tensor, steps: int, channels: int) -> None:
    if table.shape != (steps, channels):
        raise ValueError(f"{TABLE} is {list(table.shape)} instead of {[steps, channels]}")
    known = sinusoids(torch.arange(steps), channels).unflatten(1, (2, -1)).transpose(1, 2).flatten(1)
    if not torch.allclose(table.float(), known, rtol=0, atol=1e-3):
        raise ValueError(f"{TABLE} holds other numbers than the sinusoids of the timesteps")


def _modules(network: UNet) -> dict[str, tuple[str, ...]]:
    """Every module of ours and theirs."""
    found = {
        "time.0": ("time_embedding.timembedding.1",),
        "time.2": ("time_embedding.timembedding.3",),
        "conv_in": ("head",),
        "norm_out": ("tail.0",),
        "conv_out": ("tail.2",),
        **_stage("middle.0", "middleblocks.0"),
        **_stage("middle.1", "middleblocks.1"),
    }
    for ours, theirs, blocks in (
        ("encoder", "downblocks", network.encoder),
        ("decoder", "upblocks", network.decoder),
    ):
        for i, _, _, layer in layers(blocks):
            if isinstance(layer, Stage):
                found |= _stage(f"{ours}.{i}", f"{theirs}.{i}")
            else:
                found[f"{ours}.{i}.conv"] = (f"{theirs}.{i}.main",)
    return found


def _stage(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    found = {f"{ours}.{name}": (f"{theirs}.{their_name}",) for name, their_name in STAGE.items()}
    return {**found, f"{ours}.attention.to_qkv": tuple(f"{theirs}.{part}" for part in QKV)}
