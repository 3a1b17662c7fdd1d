"""What every network does with its inputs: sinusoids of the timestep, checks of what else it is given."""

import math

import torch
from torch import Tensor

NO_LABEL = -1
"""The label of an image whose class is unknown, or withheld."""


def sinusoids(t: Tensor, dim: int, *, freq_shift: int = 0, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of positions in time or space (Vaswani et al. 2017, section 3.5).

    Frequency i of dim / 2 is max_period^(-i / (dim / 2 - freq_shift)); sines come first, then cosines.

    Args:
        t: positions [N], integer or float.
        dim: size of the embedding, even.
        freq_shift: 1 makes the lowest frequency exactly 1 / `max_period`, as in the code of Ho et al. 2020;
            0 is what most of their successors have.

    Returns:
        float32 [N, dim].
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - freq_shift)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)  # [N, half]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def no_labels(t: Tensor) -> Tensor:
    """`NO_LABEL` for every image: int64 [B], beside timesteps t [B]."""
    return torch.full_like(t, NO_LABEL, dtype=torch.int64)


def check_labels(labels: Tensor | None, num_classes: int | None) -> None:
    """Refuse labels for an unconditional network, which is one without `num_classes`.

    Raises:
        ValueError: saying so.
    """
    if num_classes is None and labels is not None:
        raise ValueError("labels: this network was built without num_classes, so it takes none")


def check_vector(vector: Tensor | None, size: int | None) -> None:
    """Refuse a vector [B, D] for a network that takes one of `size` numbers, or none.

    Raises:
        ValueError: saying so.
    """
    if vector is None:
        return
    if size is None:
        raise ValueError("vector: this network was built without vector_size, so it takes none")
    if vector.ndim != 2 or vector.shape[1] != size:
        raise ValueError(f"vector: is {list(vector.shape)}, and this network takes [B, {size}]")


def check_size(x: Tensor, multiple: int) -> None:
    """Refuse images [B, C, H, W] whose height or width is no multiple of `multiple`.

    Raises:
        ValueError: naming the nearest sizes that work.
    """
    for name, size in zip(("height", "width"), x.shape[-2:], strict=True):
        if size % multiple:
            below = size // multiple * multiple
            near = f"{below} or {below + multiple}" if below else f"{multiple}"
            raise ValueError(
                f"images of {x.shape[-2]}x{x.shape[-1]}: {name} {size} must be a multiple of {multiple}, "
                f"use {near}"
            )
