"""The weights of a network from those that it is made of elsewhere, under other names."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ddpm.networks.blocks import Stage

Names = Mapping[str, Sequence[str]]
"""Every parameter of ours with those that it is made of, stacked along the first dimension."""


def renamed(names: Names, theirs: Mapping[str, Tensor], network: nn.Module, wrong: str) -> dict[str, Tensor]:
    """The state of `network`, float32, which shares no memory with `theirs`.

    A convolution of 1x1 and a linear layer are the same, whichever of them a weight belongs to.

    Args:
        names: of every parameter of `network`.
        theirs: weights by their names, of any float type.
        network: ours, on any device, the meta device among them.
        wrong: begins messages.

    Raises:
        ValueError: for the first weight that is missing, that is one too many, or whose shape is another.
    """
    lacking = [key for keys in names.values() for key in keys if key not in theirs]
    if lacking:
        raise ValueError(f"{wrong}: {lacking[0]} is missing")
    if extra := theirs.keys() - {key for keys in names.values() for key in keys}:
        raise ValueError(f"{wrong}: it has no {min(extra)}")
    ours: dict[str, Tensor] = {}
    wanted = network.state_dict()
    for name, keys in names.items():
        parts = [theirs[key] for key in keys]
        shape = [sum(part.shape[0] for part in parts), *parts[0].shape[1:]] if parts[0].ndim else []
        to = list(wanted[name].shape)
        if _without_ones(shape) != _without_ones(to) or len({part.shape[1:] for part in parts}) > 1:
            raise ValueError(f"{wrong}: {name} is {shape} instead of {to}")  # before anything is copied
        ours[name] = torch.cat(parts).float().reshape(to)
    return ours


def parameter_names(network: nn.Module, modules: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Every parameter of ours with those that it is made of, from the names of their modules."""
    there = network.state_dict().keys()
    return {
        f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs)
        for ours, theirs in modules.items()
        for kind in ("weight", "bias")
        if f"{ours}.{kind}" in there
    }


def layers(of: nn.ModuleList) -> Iterator[tuple[int, int, int, nn.Module]]:
    """The layers of a U-Net's encoder or decoder: place, level in the order of the layers, place in that
    level, and the layer. What resamples is the last of its level.
    """
    level = index = 0
    for i, layer in enumerate(of):
        yield i, level, index, layer
        index += 1
        if not isinstance(layer, Stage):
            level, index = level + 1, 0


def _without_ones(shape: list[int]) -> list[int]:
    """Without the sizes of a 1x1 kernel."""
    while len(shape) > 2 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
