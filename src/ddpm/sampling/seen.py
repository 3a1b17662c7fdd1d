"""What a person sees of what a model draws: images, decoded latents, or the channels of latents."""

import logging
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ddpm.data import autoencoder
from ddpm.data.autoencoder import Autoencoder
from ddpm.errors import UsageError
from ddpm.sampling.figures import SPREAD, channels_said, to_uint8
from ddpm.sampling.model import Model

log = logging.getLogger(__name__)


def latents_of(model: Model) -> dict[str, Any] | None:
    """What is known of the latents that a model draws, see `ddpm.data.images.DataSet.latents`; None where it
    draws images.
    """
    found: dict[str, Any] | None = (getattr(model, "data", None) or {}).get("latents")
    return found


def is_decoded(model: Model) -> bool:
    """Whether a model draws latents, and their autoencoder is there."""
    latents = latents_of(model)
    return latents is not None and _decoder(latents, model.device) is not None


def seen(model: Model, x_0: Tensor) -> Tensor:
    """What is seen of x_0, or of x_t: uint8 [..., C', H', W'] of float [..., C, H, W]; bytes as they are.

    Latents are decoded where their autoencoder is there. Else their channels are seen, from -3 to 3.
    """
    latents = latents_of(model)
    if latents is None or x_0.dtype == torch.uint8:
        return to_uint8(x_0)
    decoder = _decoder(latents, model.device)
    if decoder is None:
        return to_uint8(x_0 / SPREAD)
    flat = x_0.reshape(-1, *x_0.shape[-3:]).float()
    decoded = to_uint8(decoder.decode(flat / latents["scale"] + latents["shift"]))
    return decoded.reshape(*x_0.shape[:-3], *decoded.shape[1:])


def seen_shape(model: Model) -> tuple[int, int, int]:
    """(channels, height, width) of what `seen` gives."""
    latents = latents_of(model)
    if latents is None or not is_decoded(model):
        return model.image_shape
    channels, height, width = latents["image_shape"]
    return channels, height, width


def seen_said(model: Model) -> str:
    """For captions: how x_0 is seen, where it is no grey or colour image; "" for those."""
    if latents_of(model) is None:
        return channels_said(model.image_shape)
    if is_decoded(model):
        return "; latents, decoded"
    channels = channels_said(model.image_shape).replace("; ", ", ")
    return f"; latents{channels}, {-SPREAD:g} black and {SPREAD:g} white"


def _decoder(latents: dict[str, Any], device: torch.device) -> Autoencoder | None:
    if latents.get("vae") is None:
        return None
    return _loaded(latents["vae"], latents["checksum"], str(device))


@lru_cache(maxsize=1)
def _loaded(vae: str, checksum: str, device: str) -> Autoencoder | None:
    """The autoencoder of latents; None, which is said once, where it is not there any more."""
    try:
        known = autoencoder.facts(vae, "data.vae")
        if known.checksum != checksum:
            raise UsageError(f"data.vae={vae}: has other weights by now")
        return Autoencoder(known, device)
    except UsageError as error:
        log.warning("%s; the channels of latents are shown instead", error)
        return None
