"""The diffusion transformer of the paper's code (Peebles and Xie 2023) and of fast-DiT, which is the same."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.data import autoencoder
from ddpm.diffusion import schedules
from ddpm.diffusion.variances import FixedLarge, LearnedRange
from ddpm.diffusion.weighting import Hybrid
from ddpm.interop.foreign import (
    MOST_DEEP,
    Foreign,
    check_count,
    cosines_first,
    network_of,
    numbered,
    process,
    shape,
    target,
)
from ddpm.interop.renaming import parameter_names, renamed
from ddpm.interop.told import Told
from ddpm.networks.dit import DiT, positions

MARKS = ("x_embedder.proj.weight", "t_embedder.mlp.0.weight", "final_layer.linear.weight", "pos_embed")
"""Weights that no other codebase has under these names."""

SCALE = 0.18215
"""By which the published networks' latents were multiplied: Stable Diffusion's."""

POSITIONS = "pos_embed"
TABLE = "y_embedder.embedding_table.weight"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}
"""Of the published sizes, by their width."""

BLOCK = {
    "modulation": "adaLN_modulation.1",
    "to_qkv": "attn.qkv",
    "to_out": "attn.proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


def dit(weights: Mapping[str, Tensor], told: Told) -> Foreign:
    """A diffusion transformer; told nothing else, of the published heads, of 1000 steps of the linear
    schedule, and with a last class that is no class.

    Of other than one or three channels it draws latents, whose x_0 is not clipped, and which an autoencoder
    decodes where it is told: vae=DIR, and scale, by which its latents were multiplied.

    Raises:
        ValueError: where it is none, or cannot be expressed.
    """
    width, channels, patch, other = shape(weights, "x_embedder.proj.weight", 4)
    if patch != other:
        raise ValueError(f"its patches are of {patch}x{other} pixels, and must be square")
    _, patches, _ = shape(weights, POSITIONS, 3)
    side = math.isqrt(patches)
    if side**2 != patches:
        raise ValueError(f"{POSITIONS} is of {patches} patches, which are no square")
    out_channels, rest = divmod(shape(weights, "final_layer.linear.weight", 2)[0], patch**2)
    if rest or out_channels not in (channels, 2 * channels):
        raise ValueError(f"its network takes {channels} channels and gives {out_channels}")
    depth = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
    check_count("blocks", depth, MOST_DEEP)
    rows = shape(weights, TABLE, 2)[0]
    classes = told("num_classes", rows - 1)
    if classes not in (rows - 1, rows):
        raise ValueError(f"num_classes={classes}: its table is of {rows - 1} classes and none, or of {rows}")
    heads = told("num_heads", HEADS.get(width, max(1, width // 64)))
    learned = out_channels == 2 * channels
    schedule = target(schedules.linear, num_timesteps=told("diffusion_steps", 1000))
    network, model = network_of(
        DiT,
        in_channels=channels,
        out_channels=out_channels,
        num_classes=classes,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=shape(weights, "blocks.0.mlp.fc1.weight", 2)[0] / width,
    )
    names = parameter_names(network, _modules(depth))

    def ours(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = dict(theirs)
        _check_positions(given.pop(POSITIONS, torch.empty(0)), side, width)
        if classes == rows and TABLE in given:  # no class adds nothing
            given[TABLE] = torch.cat([given[TABLE], torch.zeros_like(given[TABLE][:1])])
        if (name := "x_embedder.proj.weight") in given:
            given[name] = given[name].flatten(1)
        state = renamed(names, given, network, "its weights are no whole network of this kind")
        state["time.0.weight"] = cosines_first(state["time.0.weight"])
        for kind in ("weight", "bias"):  # theirs has the channels last in a patch, ours first
            key = f"patches_out.{kind}"
            state[key] = (
                state[key].unflatten(0, (-1, out_channels)).transpose(0, 1).flatten(0, 1).contiguous()
            )
        return state

    config = {
        **process(schedule, LearnedRange if learned else FixedLarge),
        "model": model,
        "clip_x_0": told("clip_denoised", default=False),
        "data": {"label_drop": 0.1 if classes == rows - 1 else 0.0},
    }
    image_shape = channels, side * patch, side * patch
    latents = None if channels in (1, 3) else _latents(image_shape, told)
    if latents is not None and learned:
        config["weighting"] = target(Hybrid, levels=False)
    return Foreign(config, network, image_shape, numbered(classes), ours, latents=latents)


def _latents(image_shape: tuple[int, int, int], told: Told) -> dict[str, Any]:
    about: dict[str, Any] = {"scale": told("scale", SCALE), "shift": 0.0, "vae": None}
    if not (vae := told("vae", "")):
        return about
    here = Path(vae).expanduser()
    return about | autoencoder.decoding(str(here.absolute()) if here.is_dir() else vae, image_shape)


def _check_positions(given: Tensor, side: int, width: int) -> None:
    known = positions(side, side, width, torch.device("cpu"))
    if given.numel() != known.numel() or not torch.allclose(
        given.float().view_as(known), known, rtol=0, atol=1e-3
    ):
        raise ValueError(f"{POSITIONS} holds other numbers than the sinusoids of the patches' places")


def _modules(depth: int) -> dict[str, tuple[str]]:
    """Every module of ours and theirs."""
    found = {
        "patches_in": ("x_embedder.proj",),
        "time.0": ("t_embedder.mlp.0",),
        "time.2": ("t_embedder.mlp.2",),
        "classes": ("y_embedder.embedding_table",),
        "modulation_out": ("final_layer.adaLN_modulation.1",),
        "patches_out": ("final_layer.linear",),
    }
    for i in range(depth):
        found |= {f"layers.{i}.{ours}": (f"blocks.{i}.{theirs}",) for ours, theirs in BLOCK.items()}
    return found
