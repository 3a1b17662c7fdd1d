"""The autoencoder of latents: diffusers' AutoencoderKL, from a directory or the Hugging Face hub."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.errors import UsageError

CONFIG, WEIGHTS, PART = "config.json", "diffusion_pytorch_model.safetensors", "vae"
"""Its files, and the folder of a pipeline that holds them."""

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
PIXELS_AT_ONCE = 1 << 19
"""Of images that go through together on a CPU: two of 512x512."""

BYTES_A_PIXEL = 1 << 12
"""About what its widest layers hold for a pixel of an image."""


@dataclass(frozen=True)
class Facts:
    """What is known of an autoencoder before its weights are read.

    Attributes:
        directory: that holds it.
        latent_channels: of what it makes of images.
        image_channels: of the images.
        factor: how many times smaller a side of a latent is.
        scale, shift: that its configuration states: x_0 = (latent - shift) * scale.
        checksum: of its weights, 16 hexadecimal digits.
    """

    directory: Path
    latent_channels: int
    image_channels: int
    factor: int
    scale: float | None
    shift: float
    checksum: str


def facts(typed: str, key: str = "vae") -> Facts:
    """What an autoencoder is.

    Args:
        typed: its directory, that of a pipeline with it, or a repository of the hub, OWNER/NAME, which is
            looked for in the local cache alone where HF_HUB_OFFLINE is set.
        key: that names it, for messages.

    Raises:
        UsageError: where it is not there, is none, or its weights are pickled.
    """
    directory = _directory(typed, key)
    if not (directory / CONFIG).is_file() and (directory / PART / CONFIG).is_file():
        directory /= PART
    try:
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        kind = config["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{key}={typed}: is no directory of a diffusers AutoencoderKL: {CONFIG} is missing or says "
            "nothing of its class"
        ) from error
    if kind != "AutoencoderKL":
        raise UsageError(f"{key}={typed}: is a {kind}, and latents are made by an AutoencoderKL")
    if not (directory / WEIGHTS).is_file():
        raise UsageError(
            f"{key}={typed}: has no {WEIGHTS}; weights in other files are pickled or in parts, and are not "
            "read: save it by vae.save_pretrained(DIR)"
        )
    with (directory / WEIGHTS).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    scale, shift = config.get("scaling_factor"), config.get("shift_factor")
    return Facts(
        directory,
        int(config.get("latent_channels", 4)),
        int(config.get("in_channels", 3)),
        2 ** (len(config.get("block_out_channels", (64,))) - 1),
        None if scale is None else float(scale),
        float(shift or 0.0),
        checksum,
    )


def decoding(typed: str, latent_shape: Sequence[int], key: str = "vae") -> dict[str, Any]:
    """What `DataSet.latents` says of the autoencoder that decodes them: `vae`, `checksum` and `image_shape`.

    Args:
        typed: see `facts`.
        latent_shape: [C, H, W].
        key: that names it, for messages.

    Raises:
        UsageError: as `facts`, and where its latents have other channels.
    """
    known = facts(typed, key)
    channels, height, width = latent_shape
    if known.latent_channels != channels:
        raise UsageError(
            f"{key}={typed}: decodes latents of {known.latent_channels} channels, and these have {channels}; "
            "name the autoencoder that made them"
        )
    image_shape = [known.image_channels, height * known.factor, width * known.factor]
    return {"vae": typed, "checksum": known.checksum, "image_shape": image_shape}


def _directory(typed: str, key: str) -> Path:
    """Where it lies on this machine; of a repository what is needed is fetched."""
    path = Path(os.path.expanduser(typed))
    if path.is_dir():
        return path
    if path.exists() or not REPOSITORY.fullmatch(typed):
        raise UsageError(f"{key}={typed}: there is no such directory")
    from huggingface_hub import snapshot_download

    wanted = [f"{part}{name}" for part in ("", f"{PART}/") for name in (CONFIG, WEIGHTS)]
    try:
        return Path(snapshot_download(typed, allow_patterns=wanted))
    except Exception as error:  # of the network, the hub or its cache
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(
            f"{key}={typed}: there is no such directory, and the hub did not give it: {said}"
        ) from error


class Autoencoder:
    """Encodes and decodes on a device, in float32, a few images at a time.

    Args:
        known: what it is.
        device: that it computes on.
        batch_size: images at once, at most; by default as many as suits their size and the device.

    Raises:
        UsageError: where its weights cannot be read, or are not those of its configuration.
    """

    def __init__(self, known: Facts, device: torch.device | str, batch_size: int | None = None):
        from diffusers import AutoencoderKL

        self.known = known
        self.device = torch.device(device)
        self.batch_size = batch_size
        try:
            loaded: Any = AutoencoderKL.from_pretrained(
                known.directory,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
            )
        except Exception as error:  # a damaged file raises whatever its reader raises
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UsageError(f"vae={known.directory}: its weights cannot be read: {said}") from error
        self._network = loaded.eval().requires_grad_(False).to(self.device)

    def at_once(self, height: int, width: int) -> int:
        """How many images of so many pixels go through together."""
        if self.batch_size is not None:
            return self.batch_size
        pixels = PIXELS_AT_ONCE
        if self.device.type == "cuda":
            pixels = torch.cuda.mem_get_info(self.device)[0] // 4 // BYTES_A_PIXEL
        return max(1, min(256, pixels // (height * width)))

    @torch.inference_mode()
    def encode(self, x_0: Tensor, eps: Tensor | None = None) -> Tensor:
        """The mean of the latents of images, or a sample, before shift and scale.

        Args:
            x_0: [N, C, H, W] in [-1, 1].
            eps: unit Gaussian noise of the shape of the latents; None for the mean.
        """
        found: Any = self._network.encode(x_0.to(self.device)).latent_dist
        mean: Tensor = found.mean
        return mean if eps is None else mean + found.std * eps.to(self.device)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [-1, 1] of latents before shift and scale, on their device."""
        size = [side * self.known.factor for side in latents.shape[2:]]
        parts = latents.split(self.at_once(*size)) if len(latents) else [latents]
        drawn = [self._network.decode(part.to(self.device)).sample.clamp(-1, 1) for part in parts]
        return torch.cat(drawn).to(latents.device)

    def latent_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(channels, height, width) of the latents of images.

        Raises:
            UsageError: where images do not fit it.
        """
        channels, height, width = image_shape
        factor, wanted = self.known.factor, self.known.image_channels
        if channels != wanted and (channels, wanted) != (1, 3):
            raise UsageError(
                f"vae={self.known.directory}: takes images of {wanted} channels, and these have {channels}"
            )
        if height % factor or width % factor:
            sizes = [max(1, round(side / factor)) * factor for side in (height, width)]
            raise UsageError(
                f"data.image_size: the autoencoder makes images {factor} times smaller, and {height}x{width} "
                f"is no multiple of it; use data.image_size=[{sizes[0]},{sizes[1]}]"
            )
        return self.known.latent_channels, height // factor, width // factor
