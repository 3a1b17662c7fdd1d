"""Our U-Net and diffusers' `UNet2DModel` are the same function under other names: the configuration and the
weights of one from those of the other. diffusers is not needed."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.interop.foreign import cosines_first, multiples
from ddpm.interop.renaming import layers, parameter_names, renamed
from ddpm.networks.blocks import ResidualBlock, Stage
from ddpm.networks.unet import UNet

DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
"""What a `UNet2DModel` configuration means where it leaves a key out."""

FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_padding": (0, 1),
    "act_fn": ("silu", "swish"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True, False),
    "class_embed_type": (None,),
}
"""The values that our U-Net can express, of keys where it cannot express all."""

MOST_FEATURES = 1 << 16
MOST_LEVELS = 12
MOST = {
    "in_channels": 256,
    "out_channels": 256,
    "layers_per_block": 16,
    "norm_num_groups": MOST_FEATURES,
    "attention_head_dim": MOST_FEATURES,
    "num_class_embeds": 10_000_000,
}
"""Sizes beyond which nobody trains: a network is outlined before its weights are looked at."""

RESIDUAL_BLOCK = {
    "norm_in": "norm1",
    "conv_in": "conv1",
    "time": "time_emb_proj",
    "norm_out": "norm2",
    "conv_out": "conv2",
    "shortcut": "conv_shortcut",
}

CLASSES = "class_embedding.weight"
"""[K, D]. To show no class is, in ours, to add nothing to the time: in theirs, a last class that is zero."""

QKV = ("to_q", "to_k", "to_v")

OLD_KEYS = {
    "image_size": "sample_size",
    "num_res_blocks": "layers_per_block",
    "block_channels": "block_out_channels",
    "down_blocks": "down_block_types",
    "up_blocks": "up_block_types",
    "downscale_freq_shift": "freq_shift",
    "resnet_num_groups": "norm_num_groups",
    "resnet_act_fn": "act_fn",
    "resnet_eps": "norm_eps",
    "num_head_channels": "attention_head_dim",
}
"""What settings were called before diffusers 0.1; its kinds of blocks then began with `UNetRes`."""

OLD_PARTS = {"mid": "mid_block", "downsample_blocks": "down_blocks", "upsample_blocks": "up_blocks"}
"""What parts of the network were called before diffusers 0.1, when what halves images stood in the weights
twice, the second time as `op`."""

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How the weights of attention were called in pipelines published before diffusers 0.15."""


def unet_to_diffusers(
    network: UNet, image_size: tuple[int, int] | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and weights of the `UNet2DModel` that computes what `network` computes.

    Args:
        network: ours.
        image_size: height and width of the images that a pipeline shall sample.

    Returns:
        The configuration, plain containers, and the state dict. A network of K classes has K + 1 there:
        number K is no class.

    Raises:
        ValueError: for a setting that `UNet2DModel` does not have.
    """
    if network.timestep_scale != 1:
        raise ValueError(
            f"model.timestep_scale={network.timestep_scale}: in diffusers a network sees t as it is; no "
            "other T than 1000 comes with it"
        )
    if network.decoder_heads not in (None, network.heads):
        raise ValueError(
            f"model.decoder_heads={network.decoder_heads}: in diffusers all levels have the same"
        )
    if network.multipliers[0] != 1:
        raise ValueError(f"model.multipliers={list(network.multipliers)}: in diffusers the first must be 1")
    levels = range(len(network.widths))
    down, up = (
        [_block(network, direction, attend=level in attending) for level in levels]
        for direction, attending in (("Down", network.attention_levels), ("Up", network.levels_decoded))
    )
    resampling = "resnet" if network.residual_resampling else "conv"
    config = {
        "_class_name": "UNet2DModel",
        **DEFAULTS,
        "sample_size": None if image_size is None else _one_or_two(image_size),
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
        "freq_shift": network.freq_shift,
        "flip_sin_to_cos": False,
        "down_block_types": down,
        "up_block_types": up[::-1],
        "block_out_channels": network.widths,
        "layers_per_block": network.blocks,
        "downsample_padding": int(network.symmetric_padding),
        "downsample_type": resampling,
        "upsample_type": resampling,
        "dropout": network.dropout,
        "attention_head_dim": _attention_head_dim(network),
        "norm_num_groups": network.norm_groups,
        "attn_norm_num_groups": network.norm_groups if network.scale_shift else None,
        "norm_eps": network.norm_eps,
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "add_attention": network.middle_attention,
        "num_class_embeds": None if network.num_classes is None else network.num_classes + 1,
    }
    ours = network.state_dict()
    weights: dict[str, Tensor] = {}
    for name, theirs in parameter_names(network, _modules(network)).items():
        parts = ours[name].chunk(len(theirs))
        weights.update((key, part.contiguous()) for key, part in zip(theirs, parts, strict=True))
    if CLASSES in weights:
        weights[CLASSES] = F.pad(weights[CLASSES], (0, 0, 0, 1))
    return config, weights


def unet_from_diffusers(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> UNet:
    """The network that computes what a `UNet2DModel` computes.

    Args:
        config: of the `UNet2DModel`.
        weights: its state dict, of any age and float type. A last class that adds nothing to the time is
            taken for no class.

    Returns:
        The network in float32; it shares no memory with `weights`.

    Raises:
        ValueError: for a setting that our U-Net does not have, or weights that are not those of `config`.
    """
    settings = unet_settings(config)
    given = {**DEFAULTS, **modern_settings(config)}
    theirs = {_modern(name): weight for name, weight in weights.items() if name.split(".")[-2:-1] != ["op"]}
    if len(theirs.get(CLASSES, ())) > 1 and not theirs[CLASSES][-1].any():
        settings["num_classes"] -= 1
        theirs[CLASSES] = theirs[CLASSES][:-1]
    with torch.device("meta"):
        network = UNet(**settings)
    wrong = "the weights are not those of the configuration"
    ours = renamed(parameter_names(network, _modules(network)), theirs, network, wrong)
    if given["flip_sin_to_cos"]:
        ours["time.0.weight"] = cosines_first(ours["time.0.weight"])
    network.load_state_dict(ours, assign=True)
    return network.requires_grad_()


def unet_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of our U-Net that make it a `UNet2DModel` of this configuration.

    Raises:
        ValueError: for the first setting that it does not have.
    """
    given = {**DEFAULTS, **modern_settings(config)}
    for key, value in given.items():
        if key not in DEFAULTS and not key.startswith("_") and value not in (None, False):
            raise ValueError(f"{key}={value}: this UNet2DModel setting is not known here")
    for key, values in FIXED.items():
        if given[key] not in values:
            raise ValueError(f"{key}={given[key]}: our U-Net knows {' and '.join(map(str, values))} only")
    _check_sizes(given)
    widths = given["block_out_channels"]
    channels = widths[0]
    if given["time_embedding_dim"] not in (None, 4 * channels):
        raise ValueError(f"time_embedding_dim={given['time_embedding_dim']}: must be {4 * channels}")
    scale_shift = given["resnet_time_scale_shift"] == "scale_shift"
    # without a number, and with scale and shift, diffusers does not normalise before the middle's attention
    middle_groups = given["attn_norm_num_groups"] or (None if scale_shift else given["norm_num_groups"])
    if given["add_attention"] and middle_groups != given["norm_num_groups"]:
        raise ValueError(f"attn_norm_num_groups={middle_groups}: must be {given['norm_num_groups']}")
    attending = _attending(given["down_block_types"], "Down")
    decoded = _attending(given["up_block_types"][::-1], "Up")
    heads = given["attention_head_dim"]
    return {
        "in_channels": given["in_channels"],
        "out_channels": given["out_channels"],
        "num_classes": given["num_class_embeds"],
        "channels": channels,
        "multipliers": multiples(widths, channels),
        "blocks": given["layers_per_block"],
        "attention_levels": attending,
        "decoder_attention_levels": None if decoded == attending else decoded,
        "middle_attention": given["add_attention"],
        "channels_per_head": heads,
        "scale_shift": scale_shift,
        "residual_resampling": _residual_resampling(given),
        "symmetric_padding": given["downsample_padding"] == 1,
        "dropout": given["dropout"],
        "norm_groups": given["norm_num_groups"],
        "norm_eps": given["norm_eps"],
        "freq_shift": given["freq_shift"],
    }


def _check_sizes(given: Mapping[str, Any]) -> None:
    """Refuse what is no size of a network, or one that nobody trains.

    Raises:
        ValueError: for the first.
    """
    widths = given["block_out_channels"]
    levels = len(widths) if isinstance(widths, list | tuple) else 0
    if not 0 < levels <= MOST_LEVELS:
        raise ValueError(f"block_out_channels: must be a list of 1 to {MOST_LEVELS} numbers of features")
    for key in ("down_block_types", "up_block_types"):
        if not isinstance(given[key], list | tuple) or len(given[key]) != levels:
            raise ValueError(f"{key}: must be a list of {levels} names, one for each level")
    sizes = {f"block_out_channels[{i}]": width for i, width in enumerate(widths)}
    may_lack = ("attention_head_dim", "num_class_embeds")
    sizes |= {key: given[key] for key in MOST if key not in may_lack or given[key] is not None}
    for key, size in sizes.items():
        most = MOST.get(key, MOST_FEATURES)
        if type(size) is not int or not 0 < size <= most:
            raise ValueError(f"{key}={str(size)[:40]}: must be a whole number from 1 to {most:,}")
    for key in ("dropout", "norm_eps", "freq_shift"):
        if type(given[key]) not in (int, float):
            raise ValueError(f"{key}={str(given[key])[:40]}: must be a number")


def modern_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of any age under the names of today."""
    named = {OLD_KEYS.get(key, key): value for key, value in config.items()}
    for key in ("down_block_types", "up_block_types"):
        if isinstance(named.get(key), list | tuple):
            named[key] = [str(kind).replace("UNetRes", "") for kind in named[key]]
    return named


def _block(network: UNet, direction: str, *, attend: bool) -> str:
    """What diffusers calls the blocks of a level."""
    if attend:
        return f"Attn{direction}Block2D"
    return f"Resnet{direction}sampleBlock2D" if network.residual_resampling else f"{direction}Block2D"


def _attending(kinds: Sequence[str], direction: str) -> list[int]:
    """The levels that attend, of kinds of blocks from full resolution on."""
    known = {
        f"{direction}Block2D": False,
        f"Resnet{direction}sampleBlock2D": False,
        f"Attn{direction}Block2D": True,
    }
    for kind in kinds:
        if kind not in known:
            raise ValueError(f"{direction.lower()}_block_types: our U-Net has no {kind}")
    return [level for level, kind in enumerate(kinds) if known[kind]]


def _residual_resampling(given: Mapping[str, Any]) -> bool:
    """Whether every level resamples within residual blocks; the lowest does not resample."""
    of_attention = {"conv": False, "resnet": True}
    found: set[bool | None] = set()
    for direction, kinds in (
        ("down", given["down_block_types"][:-1]),
        ("up", given["up_block_types"][:-1]),
    ):
        for kind in kinds:
            named = of_attention.get(given[f"{direction}sample_type"])
            found.add(named if kind.startswith("Attn") else kind.startswith("Resnet"))
    if None in found or len(found) > 1:
        types = f"downsample_type={given['downsample_type']}, upsample_type={given['upsample_type']}"
        raise ValueError(f"{types}: our U-Net resamples by conv on every level, or by resnet on every level")
    return found == {True}


def _attention_head_dim(network: UNet) -> int | None:
    """diffusers counts features a head; none stands for one head of all."""
    if network.channels_per_head is not None or network.heads == 1:
        return network.channels_per_head
    middle = (len(network.widths) - 1,) if network.middle_attention else ()
    widths = {
        network.widths[level] for level in (*network.attention_levels, *network.levels_decoded, *middle)
    }
    if len(widths) > 1:
        raise ValueError(
            f"model.heads={network.heads}: diffusers has not the same number on levels of {sorted(widths)} "
            "features, it counts channels_per_head"
        )
    return widths.pop() // network.heads if widths else None


def _modules(network: UNet) -> dict[str, tuple[str, ...]]:
    """Every module of ours with those of diffusers that it is made of, stacked."""
    found = {
        "time.0": ("time_embedding.linear_1",),
        "time.2": ("time_embedding.linear_2",),
        "conv_in": ("conv_in",),
        **_stage("middle.0", "mid_block", 0),
        **_stage("middle.1", "mid_block", 1),
        "norm_out": ("conv_norm_out",),
        "conv_out": ("conv_out",),
        "classes": ("class_embedding",),
    }
    for ours, theirs, of, samplers in (
        ("encoder", "down_blocks", network.encoder, "downsamplers"),
        ("decoder", "up_blocks", network.decoder, "upsamplers"),
    ):
        for i, level, index, layer in layers(of):
            sampler = f"{theirs}.{level}.{samplers}.0"
            if isinstance(layer, Stage):
                found |= _stage(f"{ours}.{i}", f"{theirs}.{level}", index)
            elif isinstance(layer, ResidualBlock):
                found |= _residual_block(f"{ours}.{i}", sampler)
            else:
                found[f"{ours}.{i}.conv"] = (f"{sampler}.conv",)
    return found


def _stage(ours: str, theirs: str, index: int) -> dict[str, tuple[str, ...]]:
    attention = f"{theirs}.attentions.{index}"
    return {
        **_residual_block(f"{ours}.block", f"{theirs}.resnets.{index}"),
        f"{ours}.attention.norm": (f"{attention}.group_norm",),
        f"{ours}.attention.to_qkv": tuple(f"{attention}.{part}" for part in QKV),
        f"{ours}.attention.to_out": (f"{attention}.to_out.0",),
    }


def _residual_block(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    return {f"{ours}.{name}": (f"{theirs}.{their_name}",) for name, their_name in RESIDUAL_BLOCK.items()}


def _modern(name: str) -> str:
    first, *rest = name.split(".")
    name = ".".join([OLD_PARTS.get(first, first), *rest])
    module, _, kind = name.rpartition(".")
    parent, _, last = module.rpartition(".")
    if ".attentions." in name and last in OLD_ATTENTION:
        return f"{parent}.{OLD_ATTENTION[last]}.{kind}"
    return name


def _one_or_two(size: tuple[int, int]) -> int | list[int]:
    height, width = size
    return height if height == width else [height, width]
