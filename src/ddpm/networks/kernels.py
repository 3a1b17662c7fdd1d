"""What makes the networks fast on a device: quicker ways to the same numbers, each with what it saves.

The networks call these by what they compute. Times are of two cores of an AMD EPYC, a Zen 4 unless it says
Zen 5 (see docs/benchmarks.md). On a GPU `apply_each` is what differs from torch's own, and in compiled code
`GroupNorm` and `repeat_pixels`, whose times are of an NVIDIA H200.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HAS_ONEDNN = torch.backends.mkldnn.is_available()
"""Whether this build of torch convolves by oneDNN on CPUs; torch.compile cannot ask."""

MATMUL_TOKENS = 256
"""The longest row of tokens whose attention weights a CPU may hold as one matrix."""

UPSAMPLED_PIXELS = 256
"""Pixels of a batch from which on a transposed convolution makes up for adding up its weights."""

ONE_PRODUCT = 500_000
"""Weights of several layers up to which they are applied in one product. In a small network the calls take
longer than the arithmetic; in a large one putting the weights side by side does."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v (Vaswani et al. 2017, eq. 1).

    A CPU computes the plain products quicker than the fused kernel: 9.0 ms forward and back in bfloat16 for
    256 tokens of 256 features at batch 16, against 20.4 ms (Zen 5). So are tensors without values, whose
    memory is counted.

    Args:
        q, k, v: queries, keys and values, each [B, heads, N, D].

    Returns:
        [B, heads, N, D].
    """
    if q.device.type in ("cpu", "meta") and q.shape[2] <= MATMUL_TOKENS:
        weights = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)  # [B, heads, N, N]
        return weights.softmax(dim=3) @ v
    return F.scaled_dot_product_attention(q, k, v)


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu and He 2018) that leaves the memory layout as it is, in compiled code on a GPU.

    torch's own computes in NCHW there, so that the convolution behind it first copies its input into channels
    last. Without these copies a compiled training step of the CIFAR-10 network with 256 images takes 34.1 ms
    of the GPU, where it took 46.3.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] to the same shape; other shapes are left to torch."""
        if input.device.type != "cuda" or input.ndim != 4 or not torch.compiler.is_compiling():
            return super().forward(input)
        return normalize_groups(input, self.num_groups, self.weight, self.bias, self.eps)


def normalize_groups(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """What `F.group_norm` is, by way of the mean and variance of each channel.

    A group's variance is the mean of its channels' variances and the variance of their means. So every sum
    runs over pixels alone, along which both memory layouts can be read in order.

    Args:
        x: [B, C, H, W].
        groups: into which the channels fall, neighbours together.
        weight, bias: of each channel, [C].
        eps: added to the variance of a group.

    Returns:
        [B, C, H, W] in the type of the weights, which within autocast is float32, as of torch's own.
    """
    b, c = x.shape[:2]
    x = x.to(torch.promote_types(weight.dtype, torch.float32))
    variances, means = torch.var_mean(x, dim=(2, 3), correction=0)
    variances, means = variances.view(b, groups, -1), means.view(b, groups, -1)
    mean = means.mean(2, keepdim=True)
    variance = variances.mean(2, keepdim=True) + (means - mean).square().mean(2, keepdim=True)
    scale = torch.rsqrt(variance + eps) * weight.view(groups, -1)  # [B, groups, C / groups]
    mean = mean.expand_as(scale)
    normalized = (x - mean.reshape(b, c, 1, 1)) * scale.reshape(b, c, 1, 1) + bias.view(1, c, 1, 1)
    return normalized.to(weight.dtype)


class Dropout(nn.Dropout):
    """Dropout with cheap random numbers on a CPU, where the probability is rounded to a multiple of 2^-16.

    There torch draws a whole Bernoulli variable per value, on one core: 11.2 ms for 2.1 million values. Here
    16 random bits decide, four values to a 64-bit number: 3.1 ms (Zen 5). Compiled code keeps torch's.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape to the same shape; the values that stay grow so that the mean remains."""
        dropped = round(self.p * 2**16)
        by_torch = input.device.type != "cpu" or torch.compiler.is_compiling()
        if by_torch or not self.training or dropped in (0, 2**16):
            return super().forward(input)
        drawn = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        # in the order in which the input lies in memory
        bits = drawn.view(torch.int16).as_strided(input.shape, torch.empty_like(input).stride())
        scale = input.new_tensor(2**16 / (2**16 - dropped))
        return input * torch.where(bits >= dropped - 2**15, scale, torch.zeros_like(scale))


def upsample_then_convolve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 3x3 convolution, padded by one pixel, of x with every pixel repeated twice in height and width.

    Of a window of 3x3 repeated pixels, at most four differ. Adding up the weights that meet the same one
    makes both steps a transposed convolution of stride 2 by a 4x4 kernel: 16 products a pixel and channel in
    place of 36. From 16x16 to 32x32 with 256 features at batch 16, forward and back, that takes 71 ms in
    bfloat16, where it took 142, and 128 ms in float32, where it took 287; a training step of the CIFAR-10
    network takes 5.9 % and 6.7 % less.

    Args:
        x: [B, C, H, W].
        convolution: C to C' features. A layer that replaces it, such as an adapter, is called as it is.

    Returns:
        [B, C', 2H, 2W].
    """
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    short = x.device.type == "cpu" and HAS_ONEDNN and pixels >= UPSAMPLED_PIXELS
    if not short or type(convolution) is not nn.Conv2d:
        return convolution(repeat_pixels(x))
    weight = convolution.weight
    kernel = (weight.flatten(2) @ _FROM_3X3_TO_4X4.to(weight.dtype)).unflatten(2, (4, 4)).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, convolution.bias, stride=2, padding=1)


def repeat_pixels(x: Tensor) -> Tensor:
    """Every pixel twice in height and width: [B, C, H, W] to [B, C, 2H, 2W].

    In compiled code the gradient of torch's own is a scatter of atomic additions, which was 0.9 ms of a step
    of the CIFAR-10 network with 256 images; that of an expansion is a sum.
    """
    if not torch.compiler.is_compiling():
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    b, c, height, width = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        pixels = x.permute(0, 2, 3, 1)[:, :, None, :, None].expand(b, height, 2, width, 2, c)
        return pixels.reshape(b, 2 * height, 2 * width, c).permute(0, 3, 1, 2)
    pixels = x[:, :, :, None, :, None].expand(b, c, height, 2, width, 2)
    return pixels.reshape(b, c, 2 * height, 2 * width)


# a plain tensor on the CPU, wherever and in whatever mode this is imported first
with torch.inference_mode(False):
    _FROM_3_TO_4 = torch.tensor([[0.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], device="cpu")
    _FROM_3X3_TO_4X4 = torch.kron(_FROM_3_TO_4, _FROM_3_TO_4)
"""[9, 16]: which weights of a 3x3 kernel add up to each of 4x4. A transposed convolution turns its kernel
around.
"""


def apply_each(layers: Sequence[nn.Linear], x: Tensor) -> Sequence[Tensor]:
    """Every layer's output of the same x [B, D], in order: each [B, D'].

    Small layers in one product: it saves 1.4 ms of a step of the digits' network. For ADM's network of
    64x64 images at batch 1, putting the weights side by side would take ten times as long as the products.
    Layers that replaced linear ones, such as adapters, are called as they are.
    """
    plain = [layer for layer in layers if type(layer) is nn.Linear]
    if len(plain) < len(layers) or sum(layer.weight.numel() for layer in plain) > ONE_PRODUCT:
        return [layer(x) for layer in layers]
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    return F.linear(x, weight, bias).split([layer.out_features for layer in layers], dim=1)
