"""What `ddpm encode data=... vae=...` does: writes latents of a data set."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np
import torch

from ddpm.app import terminal
from ddpm.app.build import build_data
from ddpm.app.command_line import Job
from ddpm.app.grammar import absolute
from ddpm.app.run_directory import Place
from ddpm.data import autoencoder
from ddpm.data.augmentation import normalize
from ddpm.data.autoencoder import Autoencoder
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.data.sources.latents import FILE, HELD_OUT
from ddpm.errors import UsageError
from ddpm.random import Stream
from ddpm.runtime.device import device_of
from ddpm.runtime.pieces import Parts, Pieces, write_npz
from ddpm.runtime.progress import Countdown
from ddpm.runtime.writing import whole, write_whole

Draw = Literal["mean", "sample"]

IDENTITY = "encoding.json"
"""In the folder of pieces: what they are of."""


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Read the data set and the autoencoder.

    Raises:
        UsageError: where one of them is missing or they do not fit, and where something else lies at `out`.
    """
    terminal.set_up(None, leader=True)
    known = autoencoder.facts(config["vae"])
    scale = known.scale if config["scale"] is None else float(config["scale"])
    if scale is None:
        raise UsageError(
            f"vae={config['vae']}: states no scaling_factor, by which latents deviate by about 1; give "
            "scale=NUMBER"
        )
    out = absolute(config["out"])
    out = out if out.suffix == ".npz" else out / FILE
    if out.exists():
        raise UsageError(f"out={out}: is there already; delete it, or name another file")
    data = build_data(config)
    _check(data.data_set)
    network = Autoencoder(known, device_of(config["accelerator"]), config["batch_size"])
    latent_shape = network.latent_shape(data.image_shape)
    about = {
        "checksum": known.checksum,
        "name": Path(config["vae"]).name,
        "scaling_factor": scale,
        "shift_factor": known.shift,
        "draw": config["draw"],
        "seed": config["seed"],
        "images": data.fingerprint,
        "image_shape": list(data.image_shape),
    }
    pieces = out.with_name(f".{out.stem}.pieces")
    _check_pieces(pieces, about)

    def work() -> int:
        write_whole(pieces / IDENTITY, json.dumps(about))
        _encode(data, network, latent_shape, out, pieces, about, config["draw"])
        with suppress(OSError):
            place.directory.rmdir()  # nothing was written there
        terminal.say(f"{out}: {len(data.data_set.train):,} latents to train on, {list(latent_shape)} each")
        terminal.say(
            f"python train.py data=latents data.path={quote(str(out))} data.vae={quote(config['vae'])}"
        )
        return 0

    return work


def _check(data_set: DataSet) -> None:
    """Refuse what is no set of whole images."""
    if data_set.latents is not None:
        raise UsageError("data: these are latents already; name the images")
    if not isinstance(data_set.train, ImageSet):
        raise UsageError("data: images that are streamed are not encoded; prepare them by data=folder")
    if data_set.window is not None:
        raise UsageError("data.crop=random: an image is encoded once; use data.crop=center")


def _check_pieces(folder: Path, about: dict[str, Any]) -> None:
    """Refuse to go on with what another command has begun."""
    try:
        begun = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing was begun
        return
    if begun != about:
        other = next((name for name in about if begun.get(name) != about[name]), "setting")
        raise UsageError(
            f"out: {folder} holds latents that a command with another {other} began; delete it, or name "
            "another file"
        )


def _encode(
    data: ImageDataModule,
    network: Autoencoder,
    latent_shape: tuple[int, int, int],
    out: Path,
    folder: Path,
    about: dict[str, Any],
    draw: Draw,
) -> None:
    """Encode what is not there yet, and put all of it into one file."""
    data_set = data.data_set.pictures
    assert isinstance(data_set.train, ImageSet)
    parts = {"": data_set.train, HELD_OUT: data_set.validation}
    found = {
        prefix: Pieces(folder / f"{prefix}latents", len(part)) for prefix, part in parts.items() if len(part)
    }
    size = network.at_once(*data.image_shape[1:])
    like = {"latents": (latent_shape, np.dtype(np.float32))}
    for pieces in found.values():
        pieces.drop_damaged(like)
    missing = [(prefix, piece) for prefix, pieces in found.items() for piece in pieces.missing(size)]
    total = sum(map(len, parts.values()))
    with Countdown("encoding", total, total - sum(len(piece) for _, piece in missing)) as countdown:
        for prefix, piece in missing:
            latents = _latents(network, parts[prefix], piece, prefix, latent_shape, draw, about["seed"])
            found[prefix].keep(piece, {"latents": latents})
            countdown.advance(countdown.done + len(piece))
    arrays: dict[str, Parts] = {}
    for prefix, pieces in found.items():
        shape = (pieces.n, *latent_shape)
        arrays[f"{prefix}latents"] = shape, np.dtype(np.float32), _parts(pieces)
        labels = parts[prefix].labels
        if labels is not None:
            arrays[f"{prefix}labels"] = labels.shape, np.dtype(np.int64), [np.asarray(labels)]
    beside = {"scale": about["scaling_factor"], "shift": about["shift_factor"], "vae": json.dumps(about)}
    if data_set.classes is not None:
        beside["classes"] = [str(name) for name in data_set.classes]
    for name, value in beside.items():
        one = np.array(value)
        arrays[name] = one.shape, one.dtype, [one]
    with whole(out) as temporary:
        write_npz(temporary, arrays)
    for pieces in found.values():
        pieces.remove()
    (folder / IDENTITY).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _parts(pieces: Pieces) -> Iterator[np.ndarray]:
    for piece in pieces:
        yield piece["latents"]


def _latents(
    network: Autoencoder,
    images: ImageSet,
    piece: range,
    prefix: str,
    latent_shape: tuple[int, int, int],
    draw: Draw,
    seed: int,
) -> np.ndarray:
    """Of neighbouring images, float32 [K, C, H, W] before shift and scale. Sampling is keyed by (seed, i)."""
    x_0 = normalize(torch.from_numpy(images.copy(np.arange(piece.start, piece.stop)).images))
    if x_0.shape[1] != network.known.image_channels:
        x_0 = x_0.expand(-1, network.known.image_channels, -1, -1)
    eps = None
    if draw == "sample":
        stream = Stream(seed, f"ddpm.encode.{prefix}", torch.device("cpu"))
        eps = stream.normal(0, piece, latent_shape)
    latents = network.encode(x_0, eps).float().cpu().numpy()
    if not np.isfinite(latents).all():
        index = piece.start + int(np.flatnonzero(~np.isfinite(latents).all((1, 2, 3)))[0])
        raise UsageError(
            f"vae: image {index} of {prefix or 'training_'}latents has a latent that is not finite; this "
            "autoencoder does not serve for these images"
        )
    return latents
