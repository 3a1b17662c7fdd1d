"""The diffusion transformer of Peebles and Xie 2023: an image as a row of patches, conditioned on the
timestep and the class in the normalisations of every block (adaLN-Zero)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ddpm.networks import kernels
from ddpm.networks.initialisation import xavier, zero
from ddpm.networks.inputs import check_labels, check_size, check_vector, no_labels, sinusoids

TIME_FREQUENCIES = 256
"""Sinusoids of the timestep; the same for every size in the paper's code."""


def positions(rows: int, columns: int, width: int, device: torch.device) -> Tensor:
    """The fixed position embedding of the patches: half of it sinusoids of the column, half of the row.

    It is a function of the image's size alone and takes next to no time, so no network keeps it.

    Returns:
        float32 [rows * columns, width], in the order of `DiT`'s patches: row by row.
    """
    by_column = sinusoids(torch.arange(columns, device=device), width // 2)
    by_row = sinusoids(torch.arange(rows, device=device), width // 2)
    both = [by_column.expand(rows, -1, -1), by_row[:, None].expand(-1, columns, -1)]
    return torch.cat(both, dim=2).flatten(0, 1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise every token of x [B, N, D] over its features, then scale and shift it, both [B, 1, D]."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


class Block(nn.Module):
    """Self-attention and a perceptron, each added to its input through a gate that starts at zero."""

    def __init__(self, width: int, *, heads: int, mlp_ratio: float):
        super().__init__()
        self.heads = heads
        hidden = int(mlp_ratio * width)
        self.modulation = nn.Linear(width, 6 * width)
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Tokens [B, N, D] and the activated condition [B, D] to [B, N, D]."""
        modulation = self.modulation(condition)[:, None].chunk(6, dim=2)  # each [B, 1, D]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation
        x = x + gate * self.attend(modulate(x, shift, scale))
        return x + mlp_gate * self.mlp(modulate(x, mlp_shift, mlp_scale))

    def attend(self, x: Tensor) -> Tensor:
        """Self-attention of tokens [B, N, D]."""
        b, n, width = x.shape
        qkv = self.to_qkv(x).view(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, D / heads]
        return self.to_out(kernels.attention(q, k, v).transpose(1, 2).reshape(b, n, width))


class DiT(nn.Module):
    """The diffusion transformer; its defaults are those of the paper's largest, DiT-XL/2.

    Args:
        in_channels: channels of x_t, and of the image that it is conditioned on.
        out_channels: channels of the prediction; twice the image's where the variance is learned.
        num_classes: of a class-conditional network, whose table has one more row for no label;
            None is unconditional.
        vector_size: numbers that the network is conditioned on; None for none.
        patch_size: pixels on the side of a patch; height and width must be divisible by it (`size_multiple`).
        width: features of a token.
        depth: transformer blocks.
        heads: attention heads.
        mlp_ratio: hidden features of a block's perceptron, as a multiple of `width`.
        gradient_checkpointing: keep only what enters each block for the backward pass, and compute the rest
            again: about a third more time, much less memory.

    Raises:
        ValueError: where the features cannot be divided into heads, or into the sinusoids of two coordinates.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_classes: int | None = None,
        vector_size: int | None = None,
        patch_size: int = 2,
        width: int = 1152,
        depth: int = 28,
        heads: int = 16,
        mlp_ratio: float = 4.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"heads={heads} does not divide width={width}")
        if width % 4:
            raise ValueError(f"width={width} must be a multiple of 4: sines and cosines of two coordinates")
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.vector_size = vector_size
        self.patch_size = self.size_multiple = patch_size
        self.width = width
        self.gradient_checkpointing = gradient_checkpointing
        self.patches_in = nn.Linear(patch_size**2 * in_channels, width)
        self.time = nn.Sequential(nn.Linear(TIME_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.classes = None if num_classes is None else nn.Embedding(num_classes + 1, width)
        self.vector = None if vector_size is None else nn.Linear(vector_size, width, bias=False)
        self.layers = nn.ModuleList(Block(width, heads=heads, mlp_ratio=mlp_ratio) for _ in range(depth))
        self.modulation_out = nn.Linear(width, 2 * width)
        self.patches_out = nn.Linear(width, patch_size**2 * out_channels)
        self._initialise()

    def _initialise(self) -> None:
        """adaLN-Zero: every block starts as the identity, and the output as zero."""
        for module in self.modules():
            xavier(module)
        for module in (*self.time, self.classes):
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Block):
                zero(module.modulation)
        zero(self.modulation_out)
        zero(self.patches_out)

    def forward(
        self, x: Tensor, t: Tensor, labels: Tensor | None = None, *, vector: Tensor | None = None
    ) -> Tensor:
        """Predict from x_t [B, in_channels, H, W], t [B] and labels [B], as `ddpm.networks` says: the output
        [B, out_channels, H, W]. No label is a class of its own; no vector adds nothing.
        """
        check_size(x, self.size_multiple)
        check_labels(labels, self.num_classes)
        check_vector(vector, self.vector_size)
        rows, columns = (size // self.patch_size for size in x.shape[-2:])
        h = self.patches_in(self._patchify(x)) + positions(rows, columns, self.width, x.device).to(x.dtype)
        condition = self._condition(t, labels, vector, x.dtype)
        for layer in self.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                h = checkpoint(layer, h, condition, use_reentrant=False)
            else:
                h = layer(h, condition)
        shift, scale = self.modulation_out(condition)[:, None].chunk(2, dim=2)
        return self._unpatchify(self.patches_out(modulate(h, shift, scale)), rows, columns)

    def _condition(
        self, t: Tensor, labels: Tensor | None, vector: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """The embedding of time, class and vector that conditions every block, activated: [B, D]."""
        condition = self.time(sinusoids(t, TIME_FREQUENCIES).to(dtype))
        if self.classes is not None:
            labels = no_labels(t) if labels is None else labels
            row = torch.where(labels < 0, self.classes.num_embeddings - 1, labels)  # the last is no label
            condition = condition + self.classes(row)
        if self.vector is not None and vector is not None:
            condition = condition + self.vector(vector.to(dtype))
        return F.silu(condition)

    def _patchify(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to a row of patches [B, N, C * p * p]."""
        b, c, height, width = x.shape
        p = self.patch_size
        patches = x.reshape(b, c, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
        return patches.reshape(b, -1, c * p * p)

    def _unpatchify(self, patches: Tensor, rows: int, columns: int) -> Tensor:
        """[B, N, C * p * p] to [B, C, H, W]."""
        p = self.patch_size
        x = patches.view(-1, rows, columns, self.out_channels, p, p).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(-1, self.out_channels, rows * p, columns * p)
