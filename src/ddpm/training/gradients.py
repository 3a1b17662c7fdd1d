"""Limits on gradients, without waiting for the device."""

import torch
from torch import Tensor


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients as one vector, a scalar on their device.

    torch's own sorts them by device and type each time, which takes as long as the clipping.
    """
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip(
    gradients: list[Tensor],
    norm: Tensor,
    limit: float | None,
    algorithm: str | None,
    scale: Tensor | None = None,
) -> None:
    """Clip the gradients, in place, as the settings of Lightning's trainer say.

    Args:
        gradients: to clip.
        norm: of all of them, without the scale.
        limit: None, or not above 0, for none.
        algorithm: "value"; else by the norm.
        scale: as `clip_by_value` takes it.
    """
    if not limit or limit < 0:
        return
    if algorithm == "value":
        clip_by_value(gradients, limit, scale)
    else:
        clip_by_norm(gradients, norm, limit)


def clip_by_norm(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Shorten the gradients, in place, to a global norm of at most `limit`."""
    torch._foreach_mul_(gradients, (limit / (norm + 1e-6)).clamp(max=1))


def clip_by_value(gradients: list[Tensor], limit: float, scale: Tensor | None = None) -> None:
    """Bring each number of the gradients, in place, to [-limit, limit].

    Args:
        gradients: to clip.
        limit: above 0.
        scale: that the gradients are multiplied by, if they are. What overflowed stays not finite, so that
            whoever divides by the scale sees it.
    """
    if scale is None:
        _clamp(gradients, limit)
        return
    finite = global_norm(gradients).isfinite()
    torch._foreach_div_(gradients, scale)
    _clamp(gradients, limit)
    torch._foreach_mul_(gradients, torch.where(finite, scale, torch.nan))


def _clamp(gradients: list[Tensor], limit: float) -> None:
    torch._foreach_clamp_min_(gradients, -limit)
    torch._foreach_clamp_max_(gradients, limit)
