"""The pictures that a command of sample.py names: where the reverse process starts, and what is kept."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.data.augmentation import normalize
from ddpm.data.images import ImageSet
from ddpm.data.pixels.decoding import decode_or_reason
from ddpm.data.pixels.shaping import CROPS, RESIZES, Shaping, parse_range
from ddpm.diffusion import Known
from ddpm.diffusion.start import Between, FromImage, FromNoise, Start
from ddpm.errors import UsageError
from ddpm.run import Run


def read_start(config: dict[str, Any], run: Run) -> tuple[Start, Known | None, dict[str, Tensor]]:
    """Where the reverse process starts, the pixels that are known, and the images that this comes from.

    Args:
        config: of the command, with `start`, `start_t`, `end`, `mask` and `n`.
        run: that draws.

    Raises:
        UsageError: where a picture cannot be read, or they make no sense together.
    """
    for key, needed in (("end", "start"), ("mask", "start"), ("start_t", "start")):
        if config[key] is not None and config[needed] is None:
            raise UsageError(f"{key}={config[key]}: needs a picture to start from, {needed}=PICTURE")
    if config["start"] is None:
        return FromNoise(), None, {}
    if config["mask"] is not None and config["end"] is not None:
        raise UsageError("mask and end: give one; mask draws parts anew, end leads to another picture")
    last = run.module.schedule.num_timesteps - 1
    if config["start_t"] is None and config["mask"] is None:
        raise UsageError(
            f"start_t is missing: t = 0 keeps nearly all of start={config['start']}, t = {last} nearly "
            f"nothing; try start_t={last // 2}"
        )
    shaping = _shaping(run)
    pixels = {key: _shaped(key, config[key], shaping) for key in ("start", "end") if config[key] is not None}
    sources = {key: normalize(torch.from_numpy(picture)) for key, picture in pixels.items()}
    start_t = last if config["start_t"] is None else config["start_t"]
    if "end" in sources:
        return Between(sources["start"], sources["end"], start_t, config["n"]), None, sources
    known = None
    if config["mask"] is not None:
        known = Known(sources["start"], torch.from_numpy(_mask(config, shaping)) > 127)
    return FromImage(sources["start"], start_t), known, sources


def _shaping(run: Run) -> Shaping:
    """What was asked of the images of a run, as far as its configuration says it."""
    channels, height, width = run.module.image_shape
    data = run.config.get("data") or {}
    settings = data["source"] if isinstance(data.get("source"), Mapping) else data
    # a source of somebody's own may mean something else by these keys
    known = {"resize": RESIZES, "crop": CROPS}
    chosen = {key: settings[key] for key, values in known.items() if settings.get(key) in values}
    try:
        value_range = parse_range(settings.get("value_range"))
    except (ValueError, TypeError):
        value_range = None
    return Shaping((height, width), channels, value_range=value_range, **chosen)


def _shaped(key: str, path: str, shaping: Shaping) -> np.ndarray:
    """A picture as the images of the run are: uint8 [C, H, W]. One of their size stays as it is; where
    training shows another part each time, the middle is taken.
    """
    whole = _read(key, path, replace(shaping, size=None))
    assert shaping.size is not None
    if whole.shape[1:] == shaping.size:
        return whole
    return ImageSet(_read(key, path, shaping)[None]).centre(shaping.size).images[0].copy()


def _mask(config: dict[str, Any], shaping: Shaping) -> np.ndarray:
    """The mask, uint8 [1, H, W]; one that is as large as the picture to start from is shaped as that is."""
    mask = _read("mask", config["mask"], Shaping(channels=1))
    if mask.shape[1:] != _read("start", config["start"], replace(shaping, size=None)).shape[1:]:
        return mask
    return _shaped("mask", config["mask"], replace(shaping, channels=1, resize="nearest", value_range=None))


def _read(key: str, path: str, shaping: Shaping) -> np.ndarray:
    """A picture: uint8 [C, H, W]."""
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise UsageError(f"{key}={path}: there is no such file")
    decoded = decode_or_reason(file, shaping)
    if isinstance(decoded, str):
        raise UsageError(f"{key}={path}: cannot be read as a picture: {decoded}")
    return decoded.pixels.copy()
