"""Networks of published pipelines, and weights that leave nothing out."""

from typing import Any

import torch
from torch import nn

PAPER = {  # what the first published pipelines have in common
    "act_fn": "silu",
    "attention_head_dim": None,
    "center_input_sample": False,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "out_channels": 3,
    "time_embedding_type": "positional",
}
PUBLISHED = {
    "google/ddpm-cifar10-32": {
        **PAPER,
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "sample_size": 32,
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "google/ddpm-ema-church-256": {
        **PAPER,
        "_class_name": "UNet2DModel",
        "_diffusers_version": "0.0.4",
        "block_out_channels": [128, 128, 256, 256, 512, 512],
        "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
        "sample_size": 256,
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    },
}
"""The published configurations."""


def narrow(config: dict[str, Any]) -> dict[str, Any]:
    """The same network with a quarter of the features, for images of the smallest size."""
    widths = config["block_out_channels"]
    size = 2 ** (len(widths) - 1)
    return {**config, "block_out_channels": [width // 4 for width in widths], "sample_size": size}


def awake(network: nn.Module) -> nn.Module:
    """The network with every weight drawn anew: nothing hides behind a zero, nothing grows large."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data = 0.5 * drawn / parameter[0].numel() ** 0.5
        else:
            parameter.data = 0.1 * drawn + ("norm" in name and name.endswith("weight"))
    return network
