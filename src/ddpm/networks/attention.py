"""Attention of tokens to each other, by what is quickest on their device."""

from torch import Tensor
from torch.nn import functional as F

MATMUL_TOKENS = 256
"""The longest row of tokens whose attention weights a CPU may hold as one matrix."""


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017, eq. 1).

    CPUs compute the plain products up to twice as fast as the fused kernel, in bfloat16 and for few tokens.
    So do tensors without values, whose memory is counted.

    Args:
        q, k, v: queries, keys and values, each [B, heads, N, D].

    Returns:
        [B, heads, N, D].
    """
    if q.device.type in ("cpu", "meta") and q.shape[2] <= MATMUL_TOKENS:
        weights = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)  # [B, heads, N, N]
        return weights.softmax(dim=3) @ v
    return F.scaled_dot_product_attention(q, k, v)
