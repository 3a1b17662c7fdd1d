"""What a U-Net is built from. Every layer maps x [B, C, H, W] to [B, C', H', W']."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddpm.networks.attention import attend

HAS_ONEDNN = torch.backends.mkldnn.is_available()
"""Whether this build of torch convolves by oneDNN on CPUs; torch.compile cannot ask."""


class Dropout(nn.Dropout):
    """Dropout, several times quicker on CPUs, where torch draws a whole Bernoulli variable per value, on one
    core: that was 4 to 8 % of a training step. Here 16 random bits decide, four values to a 64-bit number, so
    the probability is rounded to a multiple of 2^-16. Compiled code keeps torch's.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape to the same shape; the values that stay grow so that the mean remains."""
        dropped = round(self.p * 2**16)
        theirs = x.device.type != "cpu" or torch.compiler.is_compiling()
        if theirs or not self.training or dropped in (0, 2**16):
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # in the order in which x lies in memory
        bits = drawn.view(torch.int16).as_strided(x.shape, torch.empty_like(x).stride())
        scale = x.new_tensor(2**16 / (2**16 - dropped))
        return x * torch.where(bits >= dropped - 2**15, scale, torch.zeros_like(scale))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut, told the time between them.

    The layer `time` belongs to the block, but the network applies it: see `UNet`.

    Args:
        in_channels: features of the input.
        out_channels: features of the output.
        time_dim: time features.
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
        self.norm_in = nn.GroupNorm(norm_groups, in_channels, eps=norm_eps)
        self.resample = nn.Identity() if resample is None else resample
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, 2 * out_channels if scale_shift else out_channels)
        self.norm_out = nn.GroupNorm(norm_groups, out_channels, eps=norm_eps)
        self.dropout = Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """x [B, C_in, H, W] and what `time` makes of the time embedding, [B, C_out] or with `scale_shift`
        [B, 2 C_out], to [B, C_out, H', W'].
        """
        h = self.conv_in(self.resample(F.silu(self.norm_in(x))))
        features = emb[:, :, None, None]
        if self.scale_shift:
            scale, shift = features.chunk(2, dim=1)
            h = self.norm_out(h) * (1 + scale) + shift
        else:
            h = self.norm_out(h + features)
        h = self.conv_out(self.dropout(F.silu(h)))
        return self.shortcut(self.resample(x)) + h


class SelfAttention(nn.Module):
    """Self-attention over all positions of a feature map, added to its input."""

    def __init__(self, channels: int, *, heads: int, norm_groups: int, norm_eps: float):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(norm_groups, channels, eps=norm_eps)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to the same shape."""
        b, c, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2).contiguous()  # [B, HW, C]
        qkv = self.to_qkv(tokens).view(b, height * width, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, HW, C / heads]
        attended = attend(q, k, v).transpose(1, 2).reshape(b, height * width, c)
        return x + self.to_out(attended).transpose(1, 2).view(b, c, height, width)


class Stage(nn.Module):
    """A residual block, then self-attention where the level has it."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None):
        super().__init__()
        self.block = block
        self.attention = nn.Identity() if attention is None else attention

    def forward(self, x: Tensor, emb: Tensor, skip: Tensor | None = None) -> Tensor:
        """x [B, C, H, W], in the decoder with what the encoder left beside it, to [B, C_out, H, W]; `emb` as
        in `ResidualBlock`.
        """
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        return self.attention(self.block(x, emb))


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
    """Doubles height and width by repeating pixels, then a 3x3 convolution.

    Of a window of 3x3 repeated pixels, at most four differ. Adding up the weights that meet the same one
    makes both steps a transposed convolution of stride 2 by a 4x4 kernel: 16 products a pixel and channel in
    place of 36, and in training up to twice the speed where oneDNN convolves on a CPU.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to [B, C, 2H, 2W]."""
        pixels = x.shape[0] * x.shape[2] * x.shape[3]  # must make up for adding the weights
        if x.device.type != "cpu" or not HAS_ONEDNN or pixels < 256:
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        weight = self.conv.weight
        kernel = (weight.flatten(2) @ TO_4X4.to(weight.dtype)).unflatten(2, (4, 4)).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=1)


# a plain tensor on the CPU, wherever and in whatever mode this is imported first
with torch.inference_mode(False):
    _TO_4 = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], device="cpu")
    TO_4X4 = torch.kron(_TO_4, _TO_4)
"""[9, 16]: which weights of a 3x3 kernel add up to each of the 4x4 of `Upsample`. A transposed convolution
turns its kernel around.
"""
