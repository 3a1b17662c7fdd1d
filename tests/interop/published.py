"""Published pipelines as their files state them, and weights that leave nothing out."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

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
LEVELS_256 = {
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
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
        **LEVELS_256,
        "sample_size": 256,
    },
}
"""Networks of the first published pipelines, the paper's own."""

OF_SCRIPTS = {  # what diffusers' class writes where a script leaves it out, until version 0.11
    "act_fn": "silu",
    "attention_head_dim": 8,
    "center_input_sample": False,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 3,
    "time_embedding_type": "positional",
}
LATER = {"add_attention": True, "resnet_time_scale_shift": "default"}
"""What it writes too from then on."""

LINEAR = {
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
}
OF_TODAY = {
    "clip_sample_range": 1.0,
    "dynamic_thresholding_ratio": 0.995,
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "leading",
}


class Pipeline(NamedTuple):
    """A published pipeline.

    Attributes:
        source: where its configuration comes from.
        unet: the network's configuration.
        scheduler: the scheduler's, with its class.
        kind: the pipeline's class.
        version: of diffusers, which wrote it.
        folders: whether its parts lie in folders of their own.
        others: further parts, by name.
        refused: what is said where it cannot be imported; empty where it can.
        parameters: of the network at full size, where a paper or a page states them.
    """

    source: str
    unet: dict[str, Any]
    scheduler: dict[str, Any]
    kind: str = "DDPMPipeline"
    version: str = "0.1.1"
    folders: bool = True
    others: Mapping[str, list[str | None]] = MappingProxyType({})
    refused: str = ""
    parameters: int | None = None


DDPM, DDIM = {"_class_name": "DDPMScheduler", **LINEAR}, {"_class_name": "DDIMScheduler", **LINEAR}
OF_256 = PUBLISHED["google/ddpm-ema-church-256"]
SMALL = {**DDPM, "variance_type": "fixed_small"}
SOUND = {"mel": ["audio_diffusion", "Mel"], "vqvae": [None, None]}
UNIT_1 = {  # the first unit of the diffusion models class
    **OF_SCRIPTS,
    "block_out_channels": [64, 128, 128, 256],
    "down_block_types": [*["DownBlock2D"] * 2, *["AttnDownBlock2D"] * 2],
    "sample_size": 32,
    "up_block_types": [*["AttnUpBlock2D"] * 2, *["UpBlock2D"] * 2],
}
DIGITS = {  # its second notebook, on MNIST
    **OF_SCRIPTS,
    **LATER,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "in_channels": 1,
    "out_channels": 1,
    "sample_size": 28,
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
LATENT = {
    **OF_SCRIPTS,
    "attention_head_dim": 32,
    "block_out_channels": [224, 448, 672, 896],
    "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
    "sample_size": 64,
    "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
}
LATENT_DDIM = {
    **DDIM, "beta_end": 0.0195, "beta_schedule": "scaled_linear", "beta_start": 0.0015, "clip_sample": False,
    "timestep_values": None,
}  # fmt: skip
ADM = {
    **OF_SCRIPTS,
    **LATER,
    "attention_head_dim": 64,
    "attn_norm_num_groups": 32,
    "block_out_channels": [192, 384, 576, 768],
    "down_block_types": ["ResnetDownsampleBlock2D", *["AttnDownBlock2D"] * 3],
    "downsample_type": "resnet",
    "layers_per_block": 3,
    "num_class_embeds": 1000,
    "resnet_time_scale_shift": "scale_shift",
    "sample_size": 64,
    "up_block_types": [*["AttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "upsample_type": "resnet",
}
NCSNPP = {
    **OF_SCRIPTS,
    "block_out_channels": [32, 64, 64, 64],
    "down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", *["SkipDownBlock2D"] * 2],
    "layers_per_block": 1,
    "mid_block_scale_factor": 1.41421356237,
    "norm_eps": 1e-06,
    "norm_num_groups": None,
    "sample_size": 32,
    "time_embedding_type": "fourier",
    "up_block_types": [*["SkipUpBlock2D"] * 2, "AttnSkipUpBlock2D", "SkipUpBlock2D"],
}
PIPELINES = {
    "google/ddpm-cifar10-32": Pipeline(
        "the paper's weights, converted by diffusers' authors", PUBLISHED["google/ddpm-cifar10-32"],
        {**DDPM, "variance_type": "fixed_large"}, folders=False, parameters=35_746_307,
    ),
    "google/ddpm-cat-256": Pipeline(  # church, bedroom and celebahq state the same, and so do ddpm-ema-*-256
        "the paper's weights, likewise", OF_256, SMALL, folders=False, parameters=113_673_219
    ),
    "google/ddpm-ema-bedroom-256 by DDIM": Pipeline(
        "likewise, in a DDIMPipeline as diffusers' slow tests load it", OF_256, SMALL, "DDIMPipeline",
        folders=False,
    ),
    "anton-l/ddpm-butterflies-128": Pipeline(
        "diffusers' example of unconditional training, as its script writes it",
        {**OF_SCRIPTS, **LATER, **LEVELS_256, "sample_size": 128}, {**SMALL, "prediction_type": "epsilon"},
        version="0.11.1", parameters=113_673_219,
    ),
    "the same script, told to predict x_0 on a cosine": Pipeline(
        "its options --prediction_type=sample and --ddpm_beta_schedule=squaredcos_cap_v2",
        {**OF_SCRIPTS, **LATER, **LEVELS_256, "sample_size": 64},
        {**SMALL, **OF_TODAY, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"},
        version="0.30.0",
    ),
    "johnowhitaker/ddpm-butterflies-32px": Pipeline(
        "the diffusion models class, unit 1", UNIT_1, {**SMALL, "beta_schedule": "squaredcos_cap_v2"},
        version="0.4.0",
    ),
    "johnowhitaker/sd-class-wikiart-from-bedrooms": Pipeline(
        "the class, unit 2: a pipeline of 2022 trained on and written by a later version",
        {
            **OF_256, **LATER, "_name_or_path": "google/ddpm-bedroom-256", "class_embed_type": None,
            "num_class_embeds": None,
        },
        {**DDIM, "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0},
        version="0.9.0",
    ),
    "the class, MNIST from scratch": Pipeline(
        "the class, unit 1, second notebook", DIGITS, {**SMALL, "prediction_type": "epsilon"},
        version="0.11.1",
    ),
    "the class, MNIST by class": Pipeline(
        "the class, unit 2: the class is shown as four more channels of x_t", {**DIGITS, "in_channels": 5},
        {**SMALL, "beta_schedule": "squaredcos_cap_v2"}, version="0.11.1",
        refused="out_channels=1: does not fit in_channels=5",
    ),
    "teticio/audio-diffusion-256": Pipeline(
        "mel spectrograms, by the training script beside it",
        {**OF_SCRIPTS, **LEVELS_256, "in_channels": 1, "out_channels": 1, "sample_size": [256, 256]}, SMALL,
        "AudioDiffusionPipeline", "0.5.0", others=SOUND,
    ),
    "teticio/audio-diffusion-ddim-256": Pipeline(
        "the same, with --scheduler=ddim",
        {**OF_SCRIPTS, **LEVELS_256, "in_channels": 1, "out_channels": 1, "sample_size": [256, 256]},
        {**DDIM, "prediction_type": "epsilon", "set_alpha_to_one": True, "steps_offset": 0},
        "AudioDiffusionPipeline", "0.10.0", others=SOUND,
    ),
    "diffusers' own tests": Pipeline(
        "the U-Net of its quick pipeline tests, with today's DDIMScheduler",
        {
            **OF_SCRIPTS, **LATER, "block_out_channels": [32, 64], "class_embed_type": None, "dropout": 0.0,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "downsample_type": "conv",
            "num_class_embeds": None, "num_train_timesteps": None, "sample_size": 32,
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "upsample_type": "conv",
        },
        {**DDIM, **OF_TODAY, "set_alpha_to_one": True}, "DDIMPipeline", "0.30.0",
    ),
    "CompVis/ldm-celebahq-256": Pipeline(
        "latent diffusion's weights, converted by its authors", LATENT, LATENT_DDIM, "LDMPipeline", "0.1.2",
        others={"vqvae": ["diffusers", "VQModel"]}, refused="a VQModel decodes.*the U-Net alone is imported",
    ),
    "its U-Net alone": Pipeline(
        "what the refusal says to do", LATENT, LATENT_DDIM, "DDIMPipeline", "0.1.2", parameters=274_056_163
    ),
    "google/ncsnpp-celebahq-256": Pipeline(
        "score_sde's weights, converted likewise; the U-Net as diffusers' tests of its kind have it", NCSNPP,
        {"_class_name": "ScoreSdeVeScheduler", "num_train_timesteps": 2000, "sigma_max": 1348, "snr": 0.15},
        "ScoreSdeVePipeline", refused="its U-Net is NCSN",
    ),
    "openai/diffusers-cd_imagenet64_l2": Pipeline(
        "consistency models, by the script that converts them", ADM,
        {"_class_name": "CMStochasticIterativeScheduler", "num_train_timesteps": 40, "sigma_max": 80.0},
        "ConsistencyModelPipeline", "0.18.0", refused="from any noise to the image at once",
    ),
    "facebook/DiT-XL-2-256": Pipeline(
        "DiT's weights, converted by Meta", {}, {**DDIM, "clip_sample": False}, "DiTPipeline", "0.12.0",
        others={"transformer": ["diffusers", "Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]},
        refused="import the file that it was made from, as DiT-XL-2-256x256.pt",
    ),
}  # fmt: skip
"""Published pipelines, in the order of the years."""


def narrow(config: dict[str, Any]) -> dict[str, Any]:
    """The same network with an eighth of the features or 16 on the first level, as many groups and heads of
    them less, for small images.
    """
    widths = config["block_out_channels"]
    factor = 8 if widths[0] > 64 else widths[0] // 16
    size = max(8, 2 ** (len(widths) - 1))
    heads = config["attention_head_dim"]
    return {
        **config,
        "block_out_channels": [width // factor for width in widths],
        "norm_num_groups": config["norm_num_groups"] // factor,
        "attention_head_dim": None if heads is None else heads // factor,
        "sample_size": size if isinstance(config["sample_size"], int) else [size, size],
    }


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
