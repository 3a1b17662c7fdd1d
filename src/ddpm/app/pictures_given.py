"""The pictures that a command of sample.py names: where the reverse process starts, and what is kept."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.app.as_trained import own_data
from ddpm.data.augmentation import normalize
from ddpm.data.pixels.decoding import decode_or_reason
from ddpm.data.pixels.like_training import shaped, shaping_of
from ddpm.data.pixels.shaping import Shaping
from ddpm.diffusion import Known
from ddpm.errors import UsageError
from ddpm.run import Run


@dataclass(frozen=True)
class Given:
    """The pictures of a command, as the run's images are.

    Attributes:
        sources: start and end, [C, H, W] in [-1, 1], as far as they are given.
        known: the pixels that are kept, where there is a mask.
        contents: a fingerprint of each of them, by key.
    """

    sources: dict[str, Tensor] = field(default_factory=dict)
    known: Known | None = None
    contents: dict[str, str] = field(default_factory=dict)


def read(config: Mapping[str, Any], run: Run) -> Given:
    """Read them.

    Args:
        config: of the command, with `start`, `start_t`, `end` and `mask`.
        run: that draws.

    Raises:
        UsageError: where a picture cannot be read, or they make no sense together.
    """
    for key, needed in (("end", "start"), ("mask", "start"), ("start_t", "start")):
        if config[key] is not None and config[needed] is None:
            raise UsageError(f"{key}={config[key]}: needs a picture to start from, {needed}=PICTURE")
    if config["start"] is None:
        return Given()
    if run.module.draws_latents:
        raise UsageError(f"start={config['start']}: is a picture, and this run draws latents; leave it out")
    if config["mask"] is not None and config["end"] is not None:
        raise UsageError("mask and end: give one; mask draws parts anew, end leads to another picture")
    last = run.module.schedule.num_timesteps - 1
    if config["start_t"] is None and config["mask"] is None:
        raise UsageError(
            f"start_t is missing: t = 0 keeps nearly all of start={config['start']}, t = {last} nearly "
            f"nothing; try start_t={last // 2}"
        )
    shaping = shaping_of(run.module.image_shape, run.config.get("data"))
    named = {key: config[key] for key in ("start", "end") if config[key] is not None}
    held_out = _held_out({key: int(text) for key, text in named.items() if is_index(text)}, config, run)
    pixels = {
        key: held_out[key] if key in held_out else picture_like(key, named[key], shaping) for key in named
    }
    contents = {
        key: _hash(held_out[key].tobytes() if key in held_out else _file(key, named[key]).read_bytes())
        for key in named
    }
    sources = {key: normalize(torch.from_numpy(picture)) for key, picture in pixels.items()}
    if config["mask"] is None:
        return Given(sources, None, contents)
    known = Known(sources["start"], torch.from_numpy(_mask(config, shaping)) > 127)
    contents["mask"] = _hash(_file("mask", config["mask"]).read_bytes())
    return Given(sources, known, contents)


def _held_out(indices: Mapping[str, int], config: Mapping[str, Any], run: Run) -> dict[str, np.ndarray]:
    """Images that the run's own data hold out, uint8 [C, H, W], by key.

    Args:
        indices: of them, by key.
        config: of the command.
        run: whose data they are.
    """
    if not indices:
        return {}
    key, index = next(iter(indices.items()))
    try:
        data = own_data(run, {**config, "data": None})
    except UsageError as error:
        raise UsageError(
            f"{key}={index}: is an image that the run's own data hold out, and they cannot be read: {error}; "
            f"{key}=PICTURE names a file"
        ) from error
    if data.image_shape != run.module.image_shape:
        raise UsageError(
            f"{key}={index}: the data of the run are {list(data.image_shape)} by now (channels, height, "
            f"width), and it draws {list(run.module.image_shape)}; {key}=PICTURE names a file"
        )
    held_out = data.data_set.pictures.validation
    for key, index in indices.items():
        if not 0 <= index < len(held_out):
            raise UsageError(
                f"{key}={index}: the data of this run hold out {len(held_out):,} images, 0 to "
                f"{len(held_out) - 1}; a file of this name is {key}=./{index}"
            )
    return {key: held_out.copy(np.array([index])).images[0] for key, index in indices.items()}


def is_index(text: str) -> bool:
    """Whether what is typed for a picture is a number of an image: paths are read as text."""
    return text.isascii() and text.isdecimal()


def _hash(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]


def picture_like(key: str, path: str, shaping: Shaping) -> np.ndarray:
    """A picture as the images of the run are: uint8 [C, H, W]."""
    return shaped(partial(picture, key, path), shaping)


def _mask(config: Mapping[str, Any], shaping: Shaping) -> np.ndarray:
    """The mask, uint8 [1, H, W]; one that is as large as the picture to start from is shaped as that is."""
    mask = picture("mask", config["mask"], Shaping(channels=1))
    if is_index(config["start"]):  # which is as large as the images
        return mask
    if mask.shape[1:] != picture("start", config["start"], replace(shaping, size=None)).shape[1:]:
        return mask
    return picture_like(
        "mask", config["mask"], replace(shaping, channels=1, resize="nearest", value_range=None)
    )


def picture(key: str, path: str, shaping: Shaping) -> np.ndarray:
    """A picture that a key names, as it is asked for: uint8 [C, H, W].

    Raises:
        UsageError: where it is none.
    """
    decoded = decode_or_reason(_file(key, path), shaping)
    if isinstance(decoded, str):
        raise UsageError(f"{key}={path}: cannot be read as a picture: {decoded}")
    return decoded.pixels.copy()


def _file(key: str, path: str) -> Path:
    file = Path(os.path.expanduser(path))
    if not file.is_file():
        raise UsageError(f"{key}={path}: there is no such file")
    return file
