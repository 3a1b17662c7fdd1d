"""Bilinear resizing as TensorFlow 1 does it, which the field's Inception features are defined by."""

import torch
from torch import Tensor


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """`tf.image.resize_bilinear(images, [height, width], align_corners=False)` of TensorFlow 1.

    Pixel i of the result is taken at i * old / new of the original, without the half-pixel shift that
    `F.interpolate(align_corners=False)` has, and without smoothing where it becomes smaller. Positions are
    float32, as there; columns are interpolated before rows, so that the sums round alike.

    The original FID code, torch-fidelity and NVIDIA's network resize so. pytorch-fid resizes by
    `F.interpolate`, and its values differ a little for this.

    Args:
        images: float [N, C, H, W].
        height: of the result.
        width: of the result.
    """
    lower, upper, weight = _positions(images.shape[3], width, images)
    left = images.index_select(3, lower)
    images = left + (images.index_select(3, upper) - left) * weight
    lower, upper, weight = _positions(images.shape[2], height, images)
    top = images.index_select(2, lower)
    return top + (images.index_select(2, upper) - top) * weight[:, None]


def _positions(old: int, new: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and behind each new one, int64 [new], and the weight of the one behind."""
    at = torch.arange(new, dtype=torch.float32, device=like.device)
    at = at * torch.tensor(old / new, dtype=torch.float32)
    lower = at.long()
    return lower, (lower + 1).clamp_max(old - 1), (at - lower).to(like.dtype)
