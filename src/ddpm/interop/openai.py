"""The U-Net of improved-diffusion and of guided-diffusion, which is the same with more options."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ddpm.diffusion import schedules
from ddpm.diffusion.objectives import X0, Epsilon
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, Variance
from ddpm.interop.foreign import (
    MOST_BLOCKS,
    MOST_LEVELS,
    Foreign,
    check_count,
    cosines_first,
    multiples,
    network_of,
    numbered,
    process,
    shape,
    target,
)
from ddpm.interop.renaming import layers, parameter_names, renamed
from ddpm.interop.told import Told
from ddpm.networks.blocks import ResidualBlock, SelfAttention, Stage
from ddpm.networks.unet import UNet

MARKS = ("input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight")
"""Weights that no other codebase has under these names."""

SIZES = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
}
"""The images that features by level are for."""

NORM_GROUPS, NORM_EPS = 32, 1e-5

RESIDUAL_BLOCK = {
    "norm_in": "in_layers.0",
    "conv_in": "in_layers.2",
    "time": "emb_layers.1",
    "norm_out": "out_layers.0",
    "conv_out": "out_layers.3",
    "shortcut": "skip_connection",
}
ATTENTION = {"norm": "norm", "to_qkv": "qkv", "to_out": "proj_out"}


def is_guided(weights: Mapping[str, Tensor]) -> bool:
    """Whether it resamples within residual blocks, as all published networks of guided-diffusion do and none
    of improved-diffusion.
    """
    return any(re.fullmatch(r"output_blocks\.\d+\.[12]\.in_layers\.2\.weight", name) for name in weights)


def improved(weights: Mapping[str, Tensor], told: Told) -> Foreign:
    """A model of improved-diffusion.

    Told nothing else, it is the published one of its size: 4000 steps of the cosine schedule, or, of images
    of 256x256, 1000 of the linear one and a single head of attention. Its network is told t x 1000 / T,
    unless it is of 256x256 or has classes.

    Raises:
        ValueError: where it is none, or cannot be expressed.
    """
    return _model(weights, told, guided=False)


def guided(weights: Mapping[str, Tensor], told: Told) -> Foreign:
    """A model of guided-diffusion.

    Told nothing else, it is the published one of its size: 1000 steps of the cosine schedule for 64x64 and of
    the linear one for larger images, 64 features a head or, for 128x128, 4 heads, and for 64x64 the new order
    of q, k and v.

    Raises:
        ValueError: where it is none, or cannot be expressed.
    """
    return _model(weights, told, guided=True)


def _model(weights: Mapping[str, Tensor], told: Told, *, guided: bool) -> Foreign:
    settings = _settings(weights)
    size = told("image_size", SIZES.get(tuple(settings["multipliers"]), 64))
    channels, out_channels = settings["in_channels"], settings["out_channels"]
    if channels == out_channels and channels % 2 == 0 and channels > 4:
        raise ValueError(
            f"its network takes and gives {channels} channels: one that enlarges images sees the small one "
            "beside x_t, and no network here does"
        )
    learned = out_channels == 2 * channels
    if not learned and out_channels != channels:
        raise ValueError(f"its network takes {channels} channels and gives {out_channels}")
    small = not guided and size == 256
    settings |= _heads(told, guided=guided, size=size)
    new_order = guided and told("use_new_attention_order", size == 64)
    steps = told("diffusion_steps", 1000 if guided or small else 4000)
    cosine = size == 64 if guided else not small
    chain = told("noise_schedule", "cosine" if cosine else "linear", ("linear", "cosine"))
    classes = settings["num_classes"]
    if told("rescale_timesteps", not guided and not small and classes is None):
        settings["timestep_scale"] = 1000 / steps
    objective = X0 if told("predict_xstart", default=False) else Epsilon
    variance: type[Variance] = LearnedRange
    if not learned:
        variance = FixedSmall if told("sigma_small", default=False) else FixedLarge
    settings["dropout"] = told("dropout", 0.0)
    schedule = target(schedules.cosine if chain == "cosine" else schedules.linear, num_timesteps=steps)
    network, model = network_of(UNet, **settings)
    assert isinstance(network, UNet)
    names = parameter_names(network, _modules(network))

    def ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        state = renamed(names, theirs, network, "its weights are no whole network of this kind")
        state["time.0.weight"] = cosines_first(state["time.0.weight"])
        if not new_order:
            _by_kind(network, state)
        return state

    config = {**process(schedule, variance, objective), "model": model, "clip_x_0": True}
    return Foreign(config, network, (channels, size, size), numbered(classes), ours)


def _heads(told: Told, *, guided: bool, size: int) -> dict[str, Any]:
    if guided:
        by_number = told.says("num_heads") or size == 128
        each = told("num_head_channels", -1 if by_number else 64)
        if each > 0:
            return {"channels_per_head": each}
    number = told("num_heads", 1 if size == 256 and not guided else 4)
    upsample = told("num_heads_upsample", -1)
    return {"heads": number, "decoder_heads": upsample if upsample > 0 and upsample != number else None}


def _settings(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our U-Net that names and shapes say."""
    if any("transformer_blocks" in name for name in weights):
        raise ValueError("it attends to a text or to tokens (transformer_blocks), and no network here does")
    count = len({name.split(".")[1] for name in weights if name.startswith("input_blocks.")})
    upsamples = {
        name.split(".")[1]
        for name in weights
        if re.fullmatch(r"output_blocks\.\d+\.[12]\.(conv|in_layers\.2)\.weight", name)
    }
    levels = len(upsamples) + 1
    if count % levels:
        raise ValueError(f"{count} input_blocks are no whole number of levels of {levels}")
    each = count // levels  # residual blocks of a level and what halves it
    check_count("levels", levels, MOST_LEVELS)
    check_count("blocks a level", each - 1, MOST_BLOCKS)
    channels = shape(weights, "time_embed.0.weight", 2)[1]
    first, in_channels, *_ = shape(weights, "input_blocks.0.0.weight", 4)
    if first != channels:
        raise ValueError(
            f"its first convolution has {first} features where its time embedding begins with {channels}; "
            "in the networks here they are one number"
        )
    begins = [level * each + 1 for level in range(levels)]
    blocks = [f"input_blocks.{i}.0" for i in begins]
    widths = [shape(weights, f"{block}.out_layers.3.weight", 4)[0] for block in blocks]
    features = shape(weights, f"{blocks[0]}.emb_layers.1.weight", 2)[0]
    classes = shape(weights, "label_emb.weight", 2)[0] if "label_emb.weight" in weights else None
    return {
        "in_channels": in_channels,
        "out_channels": shape(weights, "out.2.weight", 4)[0],
        "num_classes": classes,
        "channels": channels,
        "multipliers": multiples(widths, channels),
        "blocks": each - 1,
        "attention_levels": [
            level for level, i in enumerate(begins) if f"input_blocks.{i}.1.qkv.weight" in weights
        ],
        "scale_shift": features == 2 * widths[0],
        "residual_resampling": is_guided(weights),
        "symmetric_padding": True,
        "norm_groups": NORM_GROUPS,
        "norm_eps": NORM_EPS,
        "freq_shift": 0,
    }


def _modules(network: UNet) -> dict[str, tuple[str, ...]]:
    """Every module of ours and theirs."""
    found = {
        "time.0": ("time_embed.0",),
        "time.2": ("time_embed.2",),
        "classes": ("label_emb",),
        "conv_in": ("input_blocks.0.0",),
        "norm_out": ("out.0",),
        "conv_out": ("out.2",),
        **_stage("middle.0", "middle_block", 0),
        **_stage("middle.1", "middle_block", 2),
    }
    for i, _, _, layer in layers(network.encoder):
        theirs = f"input_blocks.{i + 1}"
        if isinstance(layer, Stage):
            found |= _stage(f"encoder.{i}", theirs, 0)
        elif isinstance(layer, ResidualBlock):
            found |= _residual_block(f"encoder.{i}", f"{theirs}.0")
        else:
            found[f"encoder.{i}.conv"] = (f"{theirs}.0.op",)
    block, after = -1, 0  # of what doubles, which stands in the block before it, after what that has
    for i, _, _, layer in layers(network.decoder):
        if isinstance(layer, Stage):
            block, after = block + 1, 2 if isinstance(layer.attention, SelfAttention) else 1
            found |= _stage(f"decoder.{i}", f"output_blocks.{block}", 0)
        elif isinstance(layer, ResidualBlock):
            found |= _residual_block(f"decoder.{i}", f"output_blocks.{block}.{after}")
        else:
            found[f"decoder.{i}.conv"] = (f"output_blocks.{block}.{after}.conv",)
    return found


def _stage(ours: str, theirs: str, place: int) -> dict[str, tuple[str, ...]]:
    attention = {
        f"{ours}.attention.{name}": (f"{theirs}.{place + 1}.{their_name}",)
        for name, their_name in ATTENTION.items()
    }
    return {**_residual_block(f"{ours}.block", f"{theirs}.{place}"), **attention}


def _residual_block(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    return {f"{ours}.{name}": (f"{theirs}.{their_name}",) for name, their_name in RESIDUAL_BLOCK.items()}


def _by_kind(network: UNet, state: dict[str, Tensor]) -> None:
    """q, k and v of all heads one after the other, where they stood together for each head."""
    for name, module in network.named_modules():
        if isinstance(module, SelfAttention):
            for kind in ("weight", "bias"):
                key = f"{name}.to_qkv.{kind}"
                stacked = state[key].unflatten(0, (module.heads, 3, -1))
                state[key] = stacked.transpose(0, 1).flatten(0, 2).contiguous()
