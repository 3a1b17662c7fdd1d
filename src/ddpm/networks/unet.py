"""The U-Net of Ho et al. 2020 (appendix B): a convolutional encoder and decoder with skip connections,
conditioned on the timestep in every residual block, with self-attention on chosen levels. What Improved DDPM
(Nichol and Dhariwal 2021) and ADM (Dhariwal and Nichol 2021) changed in it is there as options."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ddpm.networks import kernels
from ddpm.networks.blocks import Downsample, ResidualBlock, SelfAttention, Stage, Upsample
from ddpm.networks.initialisation import xavier, zero
from ddpm.networks.inputs import check_labels, check_size, check_vector, no_labels, sinusoids


class UNet(nn.Module):
    """The paper's network; its defaults are those of the CIFAR-10 run, 35,746,307 parameters.

    Every argument is an attribute of the same name.

    Args:
        in_channels: channels of x_t, and of the image that it is conditioned on.
        out_channels: channels of the prediction; twice the image's where the variance is learned.
        num_classes: of a class-conditional network; None is unconditional.
        vector_size: numbers that the network is conditioned on; None for none.
        channels: features of the first convolution, which every level multiplies.
        multipliers: features of level i are `channels * multipliers[i]`, `widths` in whole numbers; 1.5 does
            as well as 2. Every level but the last halves the image, so height and width must be divisible by
            `size_multiple` = 2^(levels - 1).
        blocks: residual blocks on each level of the encoder; the decoder has one more.
        attention_levels: levels with self-attention after every residual block, in the encoder and in the
            decoder; 0 is full resolution.
        decoder_attention_levels: of the decoder where it attends on others; None is `attention_levels`.
        middle_attention: self-attention in the middle of the network.
        heads: attention heads, on every level.
        decoder_heads: of the decoder where it has another number of them; None is `heads`.
        channels_per_head: features of an attention head, on every level; decides in place of `heads`.
        scale_shift: the time scales and shifts features instead of being added to them.
        residual_resampling: halve and double feature maps within residual blocks, by average and by
            repetition, rather than by convolutions of their own.
        symmetric_padding: pad what a strided convolution sees on all sides, not on the right and below only.
        dropout: probability, in every residual block.
        norm_groups: groups of every group normalisation; must divide the features of every level.
        norm_eps: added to the variance of every group normalisation.
        freq_shift: of the timestep's sinusoids; 1 in the paper's code, 0 in its successors'.
        timestep_scale: the sinusoids see t times this; 1000 / T makes chains of every length look like one of
            1000 steps (`rescale_timesteps` in the code of Nichol and Dhariwal 2021).
        gradient_checkpointing: keep only what enters each layer for the backward pass, and compute the rest
            again: about a third more time, much less memory.

    Raises:
        ValueError: where the features cannot be divided into groups or heads, or a level does not exist.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_classes: int | None = None,
        vector_size: int | None = None,
        channels: int = 128,
        multipliers: Sequence[float] = (1, 2, 2, 2),
        blocks: int = 2,
        attention_levels: Sequence[int] = (1,),
        decoder_attention_levels: Sequence[int] | None = None,
        middle_attention: bool = True,
        heads: int = 1,
        decoder_heads: int | None = None,
        channels_per_head: int | None = None,
        scale_shift: bool = False,
        residual_resampling: bool = False,
        symmetric_padding: bool = False,
        dropout: float = 0.1,
        norm_groups: int = 32,
        norm_eps: float = 1e-6,
        freq_shift: int = 1,
        timestep_scale: float = 1.0,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_classes = num_classes
        self.vector_size = vector_size
        self.channels = channels
        self.multipliers = tuple(multipliers)
        self.blocks = blocks
        self.attention_levels = tuple(attention_levels)
        self.decoder_attention_levels = (
            None if decoder_attention_levels is None else tuple(decoder_attention_levels)
        )
        self.middle_attention = middle_attention
        self.heads = heads
        self.decoder_heads = decoder_heads
        self.channels_per_head = channels_per_head
        self.scale_shift = scale_shift
        self.residual_resampling = residual_resampling
        self.symmetric_padding = symmetric_padding
        self.dropout = dropout
        self.norm_groups = norm_groups
        self.norm_eps = norm_eps
        self.freq_shift = freq_shift
        self.timestep_scale = timestep_scale
        self.gradient_checkpointing = gradient_checkpointing

        self.widths = widths = [self._features(multiplier) for multiplier in multipliers]
        last = len(widths) - 1
        self.size_multiple = 2**last
        self._check()

        time_dim = 4 * channels
        self.time = nn.Sequential(nn.Linear(channels, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))
        self.classes = None if num_classes is None else nn.Embedding(num_classes, time_dim)
        self.vector = None if vector_size is None else nn.Linear(vector_size, time_dim, bias=False)

        def residual(width_in: int, width_out: int, resample: nn.Module | None = None) -> ResidualBlock:
            return ResidualBlock(
                width_in, width_out, time_dim, scale_shift=scale_shift, resample=resample,
                dropout=dropout, norm_groups=norm_groups, norm_eps=norm_eps,
            )  # fmt: skip

        def attention(width: int, number: int) -> SelfAttention:
            count = number if channels_per_head is None else width // channels_per_head
            return SelfAttention(width, heads=count, norm_groups=norm_groups, norm_eps=norm_eps)

        def stage(width_in: int, width_out: int, *, attend: bool, number: int = heads) -> Stage:
            return Stage(residual(width_in, width_out), attention(width_out, number) if attend else None)

        def halve(width: int) -> nn.Module:
            if residual_resampling:
                return residual(width, width, nn.AvgPool2d(2))
            return Downsample(width, symmetric_padding=symmetric_padding)

        def double(width: int) -> nn.Module:
            if residual_resampling:
                return residual(width, width, nn.Upsample(scale_factor=2, mode="nearest"))
            return Upsample(width)

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
                self.encoder.append(halve(width))
                skips.append(width)

        self.middle = nn.ModuleList(
            stage(width, width, attend=attend) for attend in (middle_attention, False)
        )

        self.decoder = nn.ModuleList()
        for level, level_width in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                attend = level in self.levels_decoded
                number = heads if decoder_heads is None else decoder_heads
                self.decoder.append(stage(width + skips.pop(), level_width, attend=attend, number=number))
                width = level_width
            if level > 0:
                self.decoder.append(double(width))

        self.norm_out = kernels.GroupNorm(norm_groups, width, eps=norm_eps)
        self.conv_out = nn.Conv2d(width, out_channels, 3, padding=1)
        self._initialise()

    @property
    def levels_decoded(self) -> tuple[int, ...]:
        """The levels on which the decoder attends."""
        levels = self.decoder_attention_levels
        return self.attention_levels if levels is None else levels

    def _features(self, multiplier: float) -> int:
        """Of a level."""
        features = self.channels * multiplier
        if abs(features - round(features)) > 1e-6 or round(features) < 1:  # 4 / 3 of 96 are 128
            raise ValueError(
                f"multipliers: {multiplier} times channels={self.channels} is {features:.8g} features, which "
                "must be a whole number of at least 1"
            )
        return round(features)

    def _check(self) -> None:
        if self.channels % 2:
            raise ValueError(
                f"channels={self.channels} must be even: half are sines of the timestep, half cosines"
            )
        last = len(self.widths) - 1
        for name, levels in (
            ("attention_levels", self.attention_levels),
            ("decoder_attention_levels", self.levels_decoded),
        ):
            for level in levels:
                if not 0 <= level <= last:
                    raise ValueError(
                        f"{name}: there is no level {level}, levels are 0 to {last}; [] is none of them"
                    )
        if self.channels_per_head is not None and self.heads != 1:
            raise ValueError(
                f"heads={self.heads} and channels_per_head={self.channels_per_head}: give one of them"
            )
        if self.channels_per_head is not None and self.decoder_heads is not None:
            raise ValueError(
                f"decoder_heads={self.decoder_heads} and channels_per_head={self.channels_per_head}: give one"
            )
        middle = (last,) if self.middle_attention else ()
        encoding = [self.widths[level] for level in (*self.attention_levels, *middle)]
        decoding = [self.widths[level] for level in self.levels_decoded]
        heads = "heads" if self.channels_per_head is None else "channels_per_head"
        divided = {"norm_groups": self.widths, heads: encoding}
        if self.decoder_heads is None:
            divided[heads] = encoding + decoding
        else:
            divided["decoder_heads"] = decoding
        for name, features in divided.items():
            for width in features:
                if width % getattr(self, name):
                    raise ValueError(
                        f"{name}={getattr(self, name)} does not divide the {width} features of a level"
                    )

    def _initialise(self) -> None:
        """The paper's: every residual branch and the output start at zero, so the network starts as zero."""
        self.apply(xavier)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                zero(module.conv_out)
            elif isinstance(module, SelfAttention):
                zero(module.to_out)
        zero(self.conv_out)

    def forward(
        self, x: Tensor, t: Tensor, labels: Tensor | None = None, *, vector: Tensor | None = None
    ) -> Tensor:
        """Predict from x_t [B, in_channels, H, W], t [B] and labels [B], as `ddpm.networks` says: the output
        [B, out_channels, H, W]. No label, and no vector, adds nothing to the time.
        """
        check_size(x, self.size_multiple)
        check_labels(labels, self.num_classes)
        check_vector(vector, self.vector_size)
        times = self._times(self._embedding(t, labels, vector, x.dtype))
        h = self.conv_in(x)
        skips = [h]
        for layer in self.encoder:
            h = self._run(layer, times, h)
            skips.append(h)
        for layer in self.middle:
            h = self._run(layer, times, h)
        for layer in self.decoder:
            skip = (skips.pop(),) if isinstance(layer, Stage) else ()
            h = self._run(layer, times, h, *skip)
        return self.conv_out(F.silu(self.norm_out(h)))

    def _embedding(
        self, t: Tensor, labels: Tensor | None, vector: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        """What time, class and vector say to every block, activated: [B, 4 * channels]."""
        embedding = self.time(
            sinusoids(t * self.timestep_scale, self.channels, freq_shift=self.freq_shift).to(dtype)
        )
        if self.classes is not None:
            labels = no_labels(t) if labels is None else labels
            embedding = embedding + self.classes(labels.clamp(min=0)) * (labels >= 0)[:, None]
        if self.vector is not None and vector is not None:
            embedding = embedding + self.vector(vector.to(dtype))
        return F.silu(embedding)

    @property
    def applied_together(self) -> list[nn.Linear]:
        """The layers `time` of the residual blocks, which the network applies itself, before the blocks."""
        return [layer.time for layer in self._timed]

    @property
    def _timed(self) -> list[Stage | ResidualBlock]:
        layers = (*self.encoder, *self.middle, *self.decoder)
        return [layer for layer in layers if isinstance(layer, Stage | ResidualBlock)]

    def _times(self, embedding: Tensor) -> Mapping[nn.Module, Tensor]:
        """What the layer `time` of each residual block makes of the embedding, by the layer that takes it."""
        layers = self._timed
        return dict(zip(layers, kernels.apply_each([layer.time for layer in layers], embedding), strict=True))

    def _run(self, layer: nn.Module, times: Mapping[nn.Module, Tensor], h: Tensor, *skip: Tensor) -> Tensor:
        inputs = (h, times[layer], *skip) if layer in times else (h,)
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)
