"""Weights that a seed says, so that a network can be held against another library's without a file."""

import math

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.extractors import inception_weights
from ddpm.evaluation.extractors.efficientnet_network import STAGES
from ddpm.evaluation.extractors.inception_network import convolutions, network


def normals(index: int, *shape: int) -> Tensor:
    generator = np.random.Generator(np.random.Philox(key=7, counter=[0, 0, 0, index]))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def normalised(index: int, shape: tuple[int, ...], gain: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A convolution's weight, and bias, mean and variance of the normalisation behind it."""
    channels = normals(index + 1, 3, shape[0])
    weight = normals(index, *shape) * gain / math.sqrt(math.prod(shape[1:]))
    return weight, channels[0] / 4, channels[1] / 4, 0.5 + channels[2].abs()


def inception_state() -> dict[str, Tensor]:
    """As the file that pytorch-fid and torch-fidelity read."""
    with torch.device("meta"):
        shapes = [tuple(one.weight.shape) for one in convolutions(network())]
    state = {}
    for i, (name, shape) in enumerate(zip(inception_weights.NAMES, shapes, strict=True)):
        weight, beta, mean, variance = normalised(2 * i, shape, 1.4)
        state[f"{name}.conv.weight"] = weight
        state[f"{name}.bn.weight"] = torch.ones(shape[0])
        state[f"{name}.bn.bias"] = beta
        state[f"{name}.bn.running_mean"] = mean
        state[f"{name}.bn.running_var"] = variance
    state["fc.weight"] = normals(1000, 1008, 2048) / 45
    state["fc.bias"] = normals(1001, 1008)
    return state


def efficientnet_state() -> dict[str, Tensor]:
    """As the file of the wheel."""
    state: dict[str, Tensor] = {}

    def put(convolution: str, normalisation: str, *shape: int) -> None:
        weight, beta, mean, variance = normalised(2000 + len(state), shape, 1.0)
        state[f"{convolution}.weight"] = weight
        state[f"{normalisation}.weight"] = 1 + beta
        state[f"{normalisation}.bias"] = beta.flip(0)
        state[f"{normalisation}.running_mean"] = mean
        state[f"{normalisation}.running_var"] = variance

    put("_conv_stem", "_bn0", 32, 3, 3, 3)
    inputs, block = 32, 0
    for count, size, _, expansion, outputs in STAGES:
        for _ in range(count):
            name, inner = f"_blocks.{block}.", inputs * expansion
            if expansion > 1:
                put(f"{name}_expand_conv", f"{name}_bn0", inner, inputs, 1, 1)
            put(f"{name}_depthwise_conv", f"{name}_bn1", inner, 1, size, size)
            put(f"{name}_project_conv", f"{name}_bn2", outputs, inner, 1, 1)
            inputs, block = outputs, block + 1
    put("_conv_head", "_bn1", 1280, inputs, 1, 1)
    state["_fc.weight"] = normals(3000, 1000, 1280) / 35
    state["_fc.bias"] = normals(3001, 1000)
    return state


def pictures(n: int, height: int = 32, width: int = 32, channels: int = 3) -> Tensor:
    """uint8 [n, channels, height, width]: a wave in each channel, others for each picture."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [
        torch.stack([(7 * (c + 1) * row + (11 + 5 * i) * column + 40 * i) % 256 for c in range(channels)])
        for i in range(n)
    ]
    return torch.stack(waves).to(torch.uint8)
