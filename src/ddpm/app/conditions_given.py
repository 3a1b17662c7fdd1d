"""The conditions that a command of sample.py draws under: those of held-out images, or given ones."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.app.as_trained import own_data, show_as_to
from ddpm.app.grammar import absolute
from ddpm.app.pictures_given import is_index, picture, picture_like
from ddpm.data.augmentation import normalize
from ddpm.data.conditions.downsampled import Downsampled
from ddpm.data.conditions.masked import Masked
from ddpm.data.conditions.paired import Paired
from ddpm.data.module import ImageDataModule
from ddpm.data.pixels.like_training import shaping_of
from ddpm.diffusion.condition import Condition
from ddpm.errors import UsageError
from ddpm.run import Run
from ddpm.sampling.conditions import HeldOut, InTurn, always
from ddpm.sampling.model import Conditions
from ddpm.targets import build

HELD_OUT = "held_out"
"""What is typed for the conditions of held-out images, which is also the default."""

MOST_FILES = 10_000
"""Pictures of a folder that are read as conditions."""


class Found(NamedTuple):
    """What images are drawn under, None of a run that takes no condition; fingerprints of files by key."""

    conditions: Conditions | None = None
    contents: Mapping[str, str] = {}


def read(config: Mapping[str, Any], run: Run) -> Found:
    """Read them.

    Args:
        config: of the command, with `condition` and `condition_mask`.
        run: that draws.

    Raises:
        UsageError: where the run takes none, or another, or what is given cannot be read.
    """
    typed, mask = config["condition"], config["condition_mask"]
    if not run.module.is_conditioned:
        for key in ("condition", "condition_mask"):
            if config[key] is not None:
                raise UsageError(
                    f"{key}={config[key]}: this run is conditioned on nothing beside the class; leave it "
                    "out, or train with condition=OPTION"
                )
        return Found()
    conditioning = _conditioning(run)
    if mask is not None and not isinstance(conditioning, Masked):
        raise UsageError(f"condition_mask={mask}: is for runs of condition=masked; leave it out")
    if mask is not None and typed in (None, HELD_OUT):
        raise UsageError(f"condition_mask={mask}: needs the picture that it is of, condition=PICTURE")
    start = config.get("start")
    if typed is None and start is not None:
        if not is_index(start):
            raise UsageError(
                f"start={start}: this run is conditioned on more than the class; say by condition= what the "
                f"images that come of it are drawn under, as condition=PICTURE, or condition={HELD_OUT}"
            )
        return _of_held_out("start", int(start), None, conditioning, _data_of(run, config))
    if typed in (None, HELD_OUT):
        data = _data_of(run, config)
        return Found(HeldOut(data), {"condition": data.fingerprint})
    if run.module.vector_size:
        return _vectors(typed, run)
    if is_index(typed):
        return _of_held_out("condition", int(typed), mask, conditioning, _data_of(run, config))
    pictures = _files(typed)
    contents = {"condition": _hash(b"".join(file.read_bytes() for file in pictures))}
    if isinstance(conditioning, Downsampled):
        small = [_enlarged(file, conditioning, run) for file in pictures]
        return Found(InTurn(Condition(image=torch.cat(small))), contents)
    channels, height, width = run.module.image_shape
    if isinstance(conditioning, Masked):
        if mask is None:
            raise UsageError(
                f"condition={typed}: needs the part of it that is to be drawn anew, condition_mask=PICTURE, "
                "white there and black where it is known"
            )
    else:
        channels = run.module.condition_channels
    shaping = shaping_of((channels, height, width), run.config.get("data"))
    if isinstance(conditioning, Paired):  # a picture of that side alone
        shaping = replace(shaping, value_range=conditioning.shaping(shaping).value_range)
    shown = [torch.from_numpy(picture_like("condition", str(file), shaping)) for file in pictures]
    images = normalize(torch.stack(shown))
    return (
        _masked(images, mask, conditioning, contents) if mask else Found(InTurn(Condition(images)), contents)
    )


def _conditioning(run: Run) -> Any:
    """The kind of condition that the run was trained with; None where its configuration does not say."""
    node = (run.config.get("data") or {}).get("condition")
    return None if node is None else build("data.condition", node)


def _data_of(run: Run, config: Mapping[str, Any]) -> ImageDataModule:
    """The run's own data, which hold images out."""
    try:
        data = own_data(run, {**config, "data": None})
    except UsageError as error:
        raise UsageError(
            f"condition={HELD_OUT}: are the conditions of images that the run's own data hold out, and they "
            f"cannot be read: {error}; condition=PICTURE names a file, condition=[NUMBERS] a vector"
        ) from error
    if data.image_shape != run.module.image_shape or data.condition_sizes != run.module.condition_sizes:
        raise UsageError(
            f"condition={HELD_OUT}: the data of this run are no longer what they were; condition=PICTURE "
            "names a file"
        )
    try:
        show_as_to(run, data)
    except UsageError as error:
        raise UsageError(f"condition={HELD_OUT}: {error}") from error
    return data


def _of_held_out(key: str, index: int, mask: str | None, conditioning: Any, data: ImageDataModule) -> Found:
    """The condition of one image that is held out, which a key names; with another mask, if there is one."""
    count = len(data.data_set.validation)
    if index >= count:
        raise UsageError(f"{key}={index}: the data of this run hold out {count:,} images")
    contents = {"condition": data.fingerprint}
    own = always(HeldOut(data), index)
    if mask is None:
        return Found(own, contents)
    x_0 = own.truth([0])
    assert x_0 is not None
    return _masked(x_0, mask, conditioning, contents, own.labels([0]))


def _files(typed: str) -> list[Path]:
    path = absolute(typed)
    if not path.exists():
        raise UsageError(
            f"condition={typed}: there is no such file or folder; {HELD_OUT} takes those of held-out images"
        )
    if path.is_file():
        return [path]
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if not files:
        raise UsageError(f"condition={typed}: holds no pictures")
    if len(files) > MOST_FILES:
        raise UsageError(f"condition={typed}: holds {len(files):,} files; name at most {MOST_FILES:,}")
    return files


def _enlarged(file: Path, conditioning: Downsampled, run: Run) -> Tensor:
    """A picture of few pixels as the network sees it, or one of many brought down first: [1, C, H, W]."""
    shaping = shaping_of(run.module.image_shape, run.config.get("data"))
    _, height, width = run.module.image_shape
    small = (height // conditioning.factor, width // conditioning.factor)
    whole = picture("condition", str(file), replace(shaping, size=None))
    high, wide = whole.shape[1:]
    if (high, wide) == small:
        return conditioning.enlarged(normalize(torch.from_numpy(whole[None])))
    if high < height or wide < width:
        raise UsageError(
            f"condition={file}: is {high}x{wide} (height x width); this run takes pictures of "
            f"{small[0]}x{small[1]}, or of {height}x{width} and more, which are brought down"
        )
    large = torch.from_numpy(picture_like("condition", str(file), shaping))
    return conditioning.enlarged(conditioning.reduced(normalize(large[None])))


def _masked(
    x_0: Tensor,
    mask: str,
    conditioning: Masked,
    contents: Mapping[str, str],
    labels: Sequence[int] | None = None,
) -> Found:
    """Pictures [N, C, H, W], and their classes, of which one mask says the part that is known."""
    shown = picture("condition_mask", mask, replace(shaping_of((1, *x_0.shape[2:]), None), size=None))
    if shown.shape[1:] != tuple(x_0.shape[2:]):
        raise UsageError(
            f"condition_mask={mask}: is {shown.shape[1]}x{shown.shape[2]} (height x width), and images of "
            f"this run are {x_0.shape[2]}x{x_0.shape[3]}; it must be as large as they are"
        )
    known = torch.from_numpy(shown[None]) <= 127
    kept = {**contents, "condition_mask": _hash(absolute(mask).read_bytes())}
    return Found(InTurn(conditioning.of(x_0, known), x_0, labels), kept)


def _vectors(typed: str, run: Run) -> Found:
    """Given numbers, as the network sees them."""
    size = run.module.vector_size
    if run.module.condition_channels:
        raise UsageError(
            f"condition={typed}: this run takes an image and a vector; only {HELD_OUT} gives both"
        )
    values = _numbers(typed)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] != size or not len(values):
        raise UsageError(
            f"condition={typed}: is {list(values.shape)}, and this run takes vectors of {size} numbers, or a "
            f"row of them for each image"
        )
    if not np.isfinite(values).all():
        raise UsageError(f"condition={typed}: holds a number that is not finite")
    about = (run.module.data or {}).get("condition") or {}
    mean = torch.tensor(about.get("mean", [0.0] * size))
    std = torch.tensor(about.get("std", [1.0] * size))
    vectors = (torch.from_numpy(values.astype(np.float32)) - mean) / std
    return Found(InTurn(Condition(vector=vectors)), {"condition": _hash(values.tobytes())})


def _numbers(typed: str) -> np.ndarray:
    """[0.1,0.2], or what a .npy file or the only array of an .npz file holds: float64."""
    if typed.lstrip().startswith("["):
        try:
            return np.asarray(json.loads(typed), np.float64)
        except (ValueError, TypeError) as error:
            raise UsageError(f"condition={typed}: must be numbers, as [0.1,0.2]") from error
    path = absolute(typed)
    if not path.is_file():
        raise UsageError(f"condition={typed}: there is no such file; numbers are typed as [0.1,0.2]")
    try:
        with np.load(path, allow_pickle=False) as held:
            if len(held.files) != 1:
                raise UsageError(f"condition={typed}: holds {len(held.files)} arrays; keep one")
            found = held[held.files[0]]
    except (AttributeError, TypeError):  # a .npy file, which is no context manager
        found = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"condition={typed}: cannot be read as an .npy or .npz file") from error
    if found.dtype.kind not in "fiub" or not math.prod(found.shape):
        raise UsageError(f"condition={typed}: holds no numbers")
    return found.astype(np.float64)


def _hash(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()[:16]
