"""What a U-Net is built from. Every layer maps x [B, C, H, W] to [B, C', H', W']."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks import kernels


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, conditioned on the time between them.

    The layer `time` belongs to the block, but the network applies it, for all blocks at once.

    Args:
        in_channels: features of the input.
        out_channels: features of the output.
        time_dim: features of the time embedding.
        dropout: probability, before the second convolution.
        norm_groups: groups of the normalisations.
        norm_eps: added to the variances of the normalisations.
        scale_shift: the time scales and shifts the second normalisation's output (Nichol and Dhariwal 2021,
            section 3) instead of being added to its input (Ho et al. 2020, appendix B).
        resample: what halves or doubles height and width on both paths, before the first convolution
            (Brock et al. 2019; Dhariwal and Nichol 2021, section 3); None keeps them.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        *,
        dropout: float,
        norm_groups: int,
        norm_eps: float,
        scale_shift: bool = False,
        resample: nn.Module | None = None,
    ):
        super().__init__()
        self.scale_shift = scale_shift
        self.norm_in = kernels.GroupNorm(norm_groups, in_channels, eps=norm_eps)
        self.resample = nn.Identity() if resample is None else resample
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, 2 * out_channels if scale_shift else out_channels)
        self.norm_out = kernels.GroupNorm(norm_groups, out_channels, eps=norm_eps)
        self.dropout = kernels.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, C_in, H, W] and the output of the layer `time`, [B, C_out] or with `scale_shift`
        [B, 2 C_out], to [B, C_out, H', W'].
        """
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        time = time[:, :, None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + time)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.shortcut(self.resample(x)) + h


class SelfAttention(nn.Module):
    """Self-attention over all positions of a feature map, added to its input."""

    def __init__(self, channels: int, *, heads: int, norm_groups: int, norm_eps: float):
        super().__init__()
        self.heads = heads
        self.norm = kernels.GroupNorm(norm_groups, channels, eps=norm_eps)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to the same shape."""
        b, c, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2).contiguous()  # [B, HW, C]
        qkv = self.to_qkv(tokens).view(b, height * width, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, HW, C / heads]
        attended = kernels.attention(q, k, v).transpose(1, 2).reshape(b, height * width, c)
        return x + self.to_out(attended).transpose(1, 2).view(b, c, height, width)


class Stage(nn.Module):
    """A residual block, then self-attention where the level has it."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None):
        super().__init__()
        self.block = block
        self.attention = nn.Identity() if attention is None else attention

    @property
    def time(self) -> nn.Linear:
        """The layer of the residual block that the network applies to the time embedding."""
        return self.block.time

    def forward(self, x: Tensor, time: Tensor, skip: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], in the decoder beside the encoder's map `skip`, to [B, C_out, H, W]; `time` as in
        `ResidualBlock`.
        """
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.attention(self.block(x, time))


class Downsample(nn.Module):
    """Halves height and width by a strided 3x3 convolution.

    Args:
        channels: features.
        symmetric_padding: pad by one pixel on every side. Otherwise on the right and below only, which is how
            TensorFlow pads a stride of 2, so that weights trained with the paper's code fit.
    """

    def __init__(self, channels: int, *, symmetric_padding: bool = False):
        super().__init__()
        self.padding = (1, 1, 1, 1) if symmetric_padding else (0, 1, 0, 1)
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to [B, C, H / 2, W / 2]."""
        return self.conv(F.pad(x, self.padding))


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to [B, C, 2H, 2W]."""
        return kernels.upsample_then_convolve(x, self.conv)
