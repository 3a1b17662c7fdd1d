"""The U-Net of Ho et al. 2020 (appendix B): a convolutional encoder and decoder with skip connections,
conditioned on the timestep in every residual block, with self-attention on chosen levels."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal embedding of timesteps (Vaswani et al. 2017, section 3.5).

    The frequencies run geometrically from 1 down to 1 / `max_period`; sines come first, then cosines.

    Args:
        t: timesteps [B], integer or float.
        dim: size of the embedding, even and at least 4.

    Returns:
        float32 [B, dim].
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / (half - 1)
    angles = t.float()[:, None] * torch.exp(-math.log(max_period) * exponents)  # [B, half]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _xavier(layer: nn.Module) -> None:
    """Uniform initialisation scaled by the mean of fan-in and fan-out, biases zero, as in the paper's code."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut; the timestep is added between them."""

    def __init__(
        self, in_channels: int, out_channels: int, time_dim: int, *, dropout: float, norm_groups: int
    ):
        super().__init__()
        self.norm_in = nn.GroupNorm(norm_groups, in_channels, eps=1e-6)
        self.conv_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(time_dim, out_channels)
        self.norm_out = nn.GroupNorm(norm_groups, out_channels, eps=1e-6)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, C_in, H, W] and the activated time features [B, D] to [B, C_out, H, W]."""
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = h + self.time(time)[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        return self.shortcut(x) + h


class SelfAttention(nn.Module):
    """Self-attention over all positions of a feature map, added to its input."""

    def __init__(self, channels: int, *, heads: int, norm_groups: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(norm_groups, channels, eps=1e-6)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to the same shape."""
        b, c, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B, HW, C]
        qkv = self.to_qkv(tokens).view(b, height * width, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, HW, C / heads]
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, height * width, c)
        return x + self.to_out(attended).transpose(1, 2).view(b, c, height, width)


class Downsample(nn.Module):
    """Halves height and width by a strided 3x3 convolution, padded on the right and below only.

    That is how TensorFlow pads a stride of 2, so weights trained with the paper's code fit.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to [B, C, H / 2, W / 2]."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles height and width by repeating pixels, then a 3x3 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W] to [B, C, 2H, 2W]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Stage(nn.Module):
    """A residual block, then self-attention where the level has it."""

    def __init__(self, block: ResidualBlock, attention: SelfAttention | None):
        super().__init__()
        self.block = block
        self.attention = nn.Identity() if attention is None else attention

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x [B, C_in, H, W] to [B, C_out, H, W]."""
        return self.attention(self.block(x, time))


class UNet(nn.Module):
    """The paper's network; its defaults are those of the CIFAR-10 run, 35,746,307 parameters.

    Args:
        in_channels: channels of x_t.
        out_channels: channels of the prediction; twice the image's where the variance is learned.
        channels: features of the first level.
        multipliers: features of level i are `channels * multipliers[i]`; every level but the last halves the
            picture, so height and width must be divisible by `size_multiple` = 2^(levels - 1).
        blocks: residual blocks on each level of the encoder; the decoder has one more.
        attention_levels: levels with self-attention after every residual block; 0 is full resolution. The
            middle of the network has it always.
        heads: attention heads.
        dropout: probability, in every residual block.
        norm_groups: groups of every group normalisation; must divide the features of every level.

    Raises:
        ValueError: where the features cannot be divided into groups or heads, or a level does not exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (1,),
        heads: int = 1,
        dropout: float = 0.1,
        norm_groups: int = 32,
    ):
        super().__init__()
        widths = [channels * multiplier for multiplier in multipliers]
        last = len(widths) - 1
        for width in widths:
            for name, parts in (("norm_groups", norm_groups), ("heads", heads)):
                if width % parts:
                    raise ValueError(f"{name}={parts} does not divide the {width} features of a level")
        for level in attention_levels:
            if not 0 <= level <= last:
                raise ValueError(f"attention_levels: there is no level {level}, levels are 0 to {last}")
        if channels % 2:
            raise ValueError(
                f"channels={channels} must be even: half are sines of the timestep, half cosines"
            )

        self.channels = channels
        self.size_multiple = 2**last
        time_dim = 4 * channels
        self.time = nn.Sequential(
            nn.Linear(channels, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim), nn.SiLU()
        )

        def stage(width_in: int, width_out: int, *, attend: bool) -> Stage:
            block = ResidualBlock(width_in, width_out, time_dim, dropout=dropout, norm_groups=norm_groups)
            return Stage(
                block, SelfAttention(width_out, heads=heads, norm_groups=norm_groups) if attend else None
            )

        self.conv_in = nn.Conv2d(in_channels, channels, 3, padding=1)
        width = channels
        skips = [width]  # features of each map that the encoder leaves for the decoder
        self.encoder = nn.ModuleList()
        for level, level_width in enumerate(widths):
            for _ in range(blocks):
                self.encoder.append(stage(width, level_width, attend=level in attention_levels))
                width = level_width
                skips.append(width)
            if level < last:
                self.encoder.append(Downsample(width))
                skips.append(width)

        self.middle = nn.ModuleList([stage(width, width, attend=True), stage(width, width, attend=False)])

        self.decoder = nn.ModuleList()
        for level, level_width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.decoder.append(stage(width + skips.pop(), level_width, attend=level in attention_levels))
                width = level_width
            if level > 0:
                self.decoder.append(Upsample(width))

        self.norm_out = nn.GroupNorm(norm_groups, width, eps=1e-6)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        self._initialise()

    def _initialise(self) -> None:
        """The paper's: every residual branch and the output start at zero, so the network starts as zero."""
        self.apply(_xavier)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                _zero(module.conv_out)
            elif isinstance(module, SelfAttention):
                _zero(module.to_out)
        _zero(self.conv_out)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Predict from x_t.

        Args:
            x: x_t, float [B, in_channels, H, W].
            t: timesteps, int64 [B].

        Returns:
            [B, out_channels, H, W].

        Raises:
            ValueError: where height or width is no multiple of `size_multiple`.
        """
        if x.shape[-2] % self.size_multiple or x.shape[-1] % self.size_multiple:
            raise ValueError(
                f"{tuple(x.shape[-2:])} pixels: height and width must divide by {self.size_multiple}"
            )
        time = self.time(timestep_embedding(t, self.channels).to(x.dtype))  # [B, 4 * channels]
        h = self.conv_in(x)
        skips = [h]
        for layer in self.encoder:
            h = layer(h, time) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = layer(h, time)
        for layer in self.decoder:
            h = layer(torch.cat([h, skips.pop()], dim=1), time) if isinstance(layer, Stage) else layer(h)
        return self.conv_out(F.silu(self.norm_out(h)))
