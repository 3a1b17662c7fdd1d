"""Latents of an autoencoder: a file of floats with the scale that makes x_0 of them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data import autoencoder
from ddpm.data.classes import classes_in
from ddpm.data.holdout import check_fraction, split
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.paths import existing
from ddpm.data.pixels.decoding import short
from ddpm.data.prepared.preparation import Understood, sentences

FILE = "latents.npz"
"""What a folder of latents holds."""

HELD_OUT = "validation_"
"""Begins the names of arrays of latents that are held out."""

WRITTEN_BY = "python -m ddpm encode"
AT_ONCE = 1024


@dataclass(frozen=True)
class Latents:
    """Latents of images, held in memory as x_0 = (latent - shift) * scale, float32.

    The file is an npz of `latents`, floats [N, C, H, W], with `scale`, and where there are some `shift`,
    `labels` (whole numbers or words [N]), `classes` (words), `validation_latents` and `validation_labels`.

    Args:
        path: the file, or a folder with latents.npz.
        scale: what latents are multiplied by; None takes that of the file.
        shift: what is taken from them first; None takes that of the file, or 0.
        vae: the autoencoder, a directory or OWNER/NAME of the hub, by which samples are decoded; None shows
            channels.
        validation_fraction: the share that is held out where the file holds none out, in [0, 1).

    Raises:
        ValueError: from `read`, where there is no such file, it holds no latents or no scale, a number is not
            finite, labels do not fit, or the autoencoder is another.
    """

    path: str | Path
    _: KW_ONLY
    scale: float | None = None
    shift: float | None = None
    vae: str | None = None
    validation_fraction: float = 0.1

    def __post_init__(self) -> None:
        check_fraction(self.validation_fraction)
        for key in ("scale", "shift"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and (value != 0 or key == "shift")):
                raise ValueError(f"data.{key}={value} must be a finite number{' but 0' * (key == 'scale')}")

    def read(self) -> DataSet:
        path = existing(self.path)
        file = path / FILE if path.is_dir() else path
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files} if hasattr(arrays, "files") else {}
        except Exception as error:  # a damaged file raises whatever its parts raise
            raise ValueError(
                f"data.path={self.path}: cannot be read as an npz file of latents ({short(error)}); "
                f"{WRITTEN_BY} writes one"
            ) from error
        self._check(found)
        scale, shift = self._number(found, "scale", None), self._number(found, "shift", 0.0)
        parts = [self._part(found, prefix, scale, shift) for prefix in ("", HELD_OUT)]
        train, held_out = parts
        assert train is not None
        try:
            labelled, names = _numbered([train, held_out], _classes(found))
        except ValueError as error:
            raise ValueError(f"data.path={self.path}: {error}") from error
        latents = self._about(found, train.image_shape, scale, shift)
        if held_out is None:
            data_set = split(labelled[0], self.validation_fraction, names, latents=latents)
            said = f"a share of {self.validation_fraction:g}"
        else:
            data_set = DataSet(labelled[0], labelled[1], names, latents=latents)
            said = f"{HELD_OUT}latents"
        about = Understood(file.name, said, "labels" if names else "no labels")
        lines = sentences(about, len(data_set.train), len(data_set.validation), names)
        return replace(data_set, understood=lines)

    def _check(self, found: Mapping[str, np.ndarray]) -> None:
        """Refuse what is not as the class says."""
        latents = found.get("latents")
        there = ", ".join(f"{name} {one.dtype} {list(one.shape)}" for name, one in found.items()) or "nothing"
        if latents is None:
            raise ValueError(f"data.path={self.path}: holds no array called latents, but {there}")
        for name in ("latents", f"{HELD_OUT}latents"):
            one = found.get(name)
            if one is not None and (
                one.dtype.kind != "f" or one.ndim != 4 or one.shape[1:] != latents.shape[1:]
            ):
                raise ValueError(
                    f"data.path={self.path}: {name} must be floats [N, C, H, W] of one shape, not "
                    f"{one.dtype} {list(one.shape)}; images of bytes are data=arrays"
                )
        if not latents.size:
            raise ValueError(f"data.path={self.path}: holds no latents")

    def _number(self, found: Mapping[str, np.ndarray], key: str, default: float | None) -> float:
        typed = getattr(self, key)
        if typed is not None:
            return float(typed)
        value = found.get(key)
        if value is None:
            if default is not None:
                return default
            deviation = float(found["latents"][:AT_ONCE].std(dtype=np.float64))
            raise ValueError(
                f"data.scale is not set, and {self.path} holds no array called scale: latents are multiplied "
                "by it so that they deviate by about 1; set it, as in data.scale=0.18215 for the "
                f"autoencoder of Stable Diffusion; these deviate by {deviation:.3g}"
            )
        if value.dtype.kind not in "fiu" or value.size != 1 or not np.isfinite(value).all():
            raise ValueError(
                f"data.path={self.path}: {key} must be one finite number, not {value.dtype} {value.shape}"
            )
        number = float(value.reshape(()))
        if key == "scale" and number == 0:
            raise ValueError(f"data.path={self.path}: scale is 0, which leaves nothing of latents")
        return number

    def _part(
        self, found: Mapping[str, np.ndarray], prefix: str, scale: float, shift: float
    ) -> "_Part | None":
        latents, labels = found.get(f"{prefix}latents"), found.get(f"{prefix}labels")
        if latents is None:
            return None
        x_0 = np.empty(latents.shape, np.float32)
        for first in range(0, len(latents), AT_ONCE):
            block = (latents[first : first + AT_ONCE].astype(np.float32) - np.float32(shift)) * np.float32(
                scale
            )
            if not np.isfinite(block).all():
                index = first + int(np.flatnonzero(~np.isfinite(block).all((1, 2, 3)))[0])
                raise ValueError(
                    f"data.path={self.path}: latent {index} of {prefix}latents holds a number that is not "
                    "finite; encode it anew, or leave it out"
                )
            x_0[first : first + AT_ONCE] = block
        if labels is not None and (labels.shape != (len(x_0),) or labels.dtype.kind not in "iuU"):
            raise ValueError(
                f"data.path={self.path}: {prefix}labels must be whole numbers or words [{len(x_0)}], not "
                f"{labels.dtype} {list(labels.shape)}"
            )
        return _Part(x_0, labels)

    def _about(
        self, found: Mapping[str, np.ndarray], shape: tuple[int, int, int], scale: float, shift: float
    ) -> dict[str, Any]:
        """See `DataSet.latents`."""
        about: dict[str, Any] = {"scale": scale, "shift": shift, "vae": None}
        if "vae" in found:
            about["encoded_by"] = self._encoded_by(str(found["vae"]))
        if self.vae is None:
            return about
        decoded = autoencoder.decoding(self.vae, shape, "data.vae")
        made_by = about.get("encoded_by", {}).get("checksum", decoded["checksum"])
        if made_by != decoded["checksum"]:
            raise ValueError(
                f"data.vae={self.vae}: has other weights ({decoded['checksum']}) than the autoencoder that "
                f"made the latents of {self.path} ({made_by}); name that one"
            )
        return {**about, **decoded}

    def _encoded_by(self, text: str) -> dict[str, Any]:
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise ValueError(f"data.path={self.path}: vae must be a JSON object, as {WRITTEN_BY} writes it")
        return said


@dataclass(frozen=True)
class _Part:
    """Latents as x_0, and labels as they are kept."""

    x_0: np.ndarray
    labels: np.ndarray | None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        channels, height, width = self.x_0.shape[1:]
        return channels, height, width


def _classes(found: Mapping[str, np.ndarray]) -> list[str] | None:
    return [str(name) for name in found["classes"]] if "classes" in found else None


def _numbered(
    parts: Sequence[_Part | None], classes: Sequence[str] | None
) -> tuple[list[ImageSet], list[str] | None]:
    """Sets with labels that count from 0, and the names of the classes.

    Raises:
        ValueError: where one part alone has labels, or they are no classes of those that are named.
    """
    there = [part for part in parts if part is not None]
    labels = [part.labels for part in there if part.labels is not None]
    if not labels:
        return [ImageSet(part.x_0) for part in there], None
    if len(labels) < len(there):
        raise ValueError(f"one of labels and {HELD_OUT}labels is missing; give both, or neither")
    values = np.concatenate(labels).tolist()
    names = list(classes or map(str, classes_in(values)))
    at = {name: number for number, name in enumerate(names if classes else classes_in(values))}
    if classes and isinstance(values[0], int):
        at = {number: number for number in range(len(names))}
    if strange := classes_in(set(values) - at.keys()):
        raise ValueError(
            f"labels name a class {strange[0]}, and classes are {len(names)}: numbers count them from 0, "
            "words are among them"
        )
    numbers = np.array([at[one] for one in values], np.int64)
    cut = len(there[0].x_0)
    sets = [ImageSet(there[0].x_0, numbers[:cut])]
    return [*sets, *(ImageSet(part.x_0, numbers[cut:]) for part in there[1:])], names
