"""Limits on gradients, without waiting for the device."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def global_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients as one vector, a scalar on their device.

    torch's own sorts them by device and type each time, which takes as long as the clipping.
    """
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def clip(
    gradients: list[Tensor],
    limit: float | None,
    algorithm: str | None,
    optimizer: Optimizer | None = None,
    scaler: Any = None,
) -> tuple[Tensor, Tensor | int]:
    """Clip the gradients, in place, as the settings of Lightning's trainer say.

    Lightning's own refuses fused optimizers in mixed precision: they take gradients as the scaler of float16
    left them, multiplied by its scale, and divide by it themselves.

    Args:
        gradients: to clip.
        limit: None, or not above 0, for none.
        algorithm: "value"; else by the norm.
        optimizer: that they are for.
        scaler: of the losses, where there is one.

    Returns:
        The global norm before, without the scale, and 1; both 0 where the scaler leaves the step out, since
        gradients overflow.
    """
    norm, scale = global_norm(gradients), None
    if scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        scale = scaler.scale(torch.ones((), device=norm.device))  # without waiting for the device
        norm = norm / scale
    if limit and limit > 0:
        if algorithm == "value":
            clip_by_value(gradients, limit, scale)
        else:
            clip_by_norm(gradients, norm, limit)
    if scaler is None:
        return norm, 1
    takes_place = norm.isfinite()
    return torch.where(takes_place, norm, 0), takes_place


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
