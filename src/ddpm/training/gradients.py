"""Limits on gradients, without waiting for the device."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ddpm.training.shards import are_shards, parts, sum_over_parts


def norms(gradients: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The norm of all gradients as one vector, a scalar on their device, and that of each, [N].

    torch's own sorts them by device and type each time, which takes as long as the clipping. Where processes
    hold parts of them, the squares are added up in float64, whose range those of float32 do not leave; the
    norms are the same on all of them, and every one must call it.
    """
    each = torch.stack(torch._foreach_norm(parts(gradients)))
    if are_shards(gradients):
        each = sum_over_parts(each.double().square(), gradients).sqrt().float()
    return torch.linalg.vector_norm(each), each


def scale_of(optimizer: Optimizer, scaler: Any) -> Tensor | None:
    """What the gradients are multiplied by when they are clipped, without waiting for the device: the scale
    of float16, where the optimizer divides by it itself.
    """
    if scaler is None or not getattr(optimizer, "_step_supports_amp_scaling", False):
        return None
    scale: Tensor = scaler.scale(torch.ones((), device=optimizer.param_groups[0]["params"][0].device))
    return scale


def clip(
    gradients: list[Tensor],
    norm: Tensor,
    limit: float | None,
    algorithm: str | None,
    scale: Tensor | None = None,
) -> None:
    """Clip the gradients, in place, as the settings of Lightning's trainer say.

    Lightning's own refuses fused optimizers in mixed precision: they take gradients as the scaler of float16
    left them, multiplied by its scale, and divide by it themselves.

    Args:
        gradients: to clip.
        norm: of all of them, without the scale.
        limit: None, or not above 0, for none.
        algorithm: "value"; else by the norm.
        scale: that the gradients are multiplied by, if they are.
    """
    if not limit or limit <= 0:
        return
    if algorithm == "value":
        clip_by_value(gradients, limit, scale)
    else:
        clip_by_norm(gradients, norm, limit)


def clip_by_norm(gradients: list[Tensor], norm: Tensor, limit: float) -> None:
    """Shorten the gradients, in place, to a global norm of at most `limit`."""
    torch._foreach_mul_(parts(gradients), (limit / (norm + 1e-6)).clamp(max=1))


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
    finite = norms(gradients)[0].isfinite()
    torch._foreach_div_(parts(gradients), scale)
    _clamp(gradients, limit)
    torch._foreach_mul_(parts(gradients), torch.where(finite, scale, torch.nan))


def _clamp(gradients: list[Tensor], limit: float) -> None:
    held = parts(gradients)
    torch._foreach_clamp_min_(held, -limit)
    torch._foreach_clamp_max_(held, limit)
