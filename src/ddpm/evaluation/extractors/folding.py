"""A convolution and the batch normalisation behind it as one convolution, once training is over."""

import torch
from torch import Tensor, nn


@torch.no_grad()
def fold(
    convolution: nn.Conv2d,
    weight: Tensor,
    mean: Tensor,
    variance: Tensor,
    beta: Tensor,
    gamma: Tensor | None = None,
    *,
    epsilon: float,
) -> None:
    """Have a convolution with a bias compute beta + gamma (weight * x - mean) / sqrt(variance + epsilon).

    Args:
        convolution: that takes the weights.
        weight: of a convolution without bias.
        mean, variance, beta, gamma: [C] of the normalisation; gamma is 1 where there is none.
        epsilon: of the normalisation.

    Raises:
        ValueError: where the shapes are others.
    """
    given = [tensor for tensor in (mean, variance, beta, gamma) if tensor is not None]
    if weight.shape != convolution.weight.shape or any(one.shape != weight.shape[:1] for one in given):
        raise ValueError(f"weights {list(weight.shape)}, not {list(convolution.weight.shape)}")
    scale = (variance.double() + epsilon).rsqrt()
    if gamma is not None:
        scale = scale * gamma.double()
    assert convolution.bias is not None
    convolution.weight.copy_(weight.double() * scale[:, None, None, None])
    convolution.bias.copy_(beta.double() - mean.double() * scale)
