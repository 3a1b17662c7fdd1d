"""From bytes to what the network sees, on the device. Another augmentation would go into `Augmentation`."""

import torch
from torch import Tensor

from ddpm.diffusion.condition import Condition
from ddpm.networks.inputs import NO_LABEL
from ddpm.random import Purpose, Stream


def normalize(images: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to float32 in [-1, 1]; floats, which are x_0 already, as they are."""
    return images.float() if images.is_floating_point() else images.float() / 127.5 - 1


def windows(images: Tensor, u: Tensor, size: tuple[int, int]) -> Tensor:
    """A part of each image: [B, C, height, width] of [B, C, H, W].

    Args:
        images: at least as large as `size`.
        u: [B, 2] in [0, 1), how far down and to the right each part lies; evenly spread numbers give every
            position that it can have the same chance.
        size: (height, width) of the parts.
    """
    for dimension, part in zip((2, 3), size, strict=True):
        corners = (u[:, dimension - 2] * (images.shape[dimension] - part + 1)).long()
        kept = corners[:, None] + torch.arange(part, device=images.device)
        shape = [*images.shape[:dimension], part, *images.shape[dimension + 1 :]]
        images = images.gather(dimension, kept[:, None, :, None].movedim(2, dimension).expand(shape))
    return images


class Augmentation:
    """Random changes to the samples of a training step, keyed by (seed, step, index in the global batch).

    Args:
        horizontal_flip: mirror every other image.
        dequantize: add uniform noise as wide as one level of brightness, so that levels fill [-1, 1] without
            gaps: 2 (x + u) / 256 - 1 with u in [0, 1) (Theis et al. 2016).
        label_drop: share of the labels that are withheld, in [0, 1], so that one network learns with and
            without them (Ho and Salimans 2022, algorithm 1).
        condition_drop: share of the conditions that are withheld likewise, of the same images as labels.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        horizontal_flip: bool = False,
        dequantize: bool = False,
        label_drop: float = 0.0,
        condition_drop: float = 0.0,
        seed: int,
    ):
        self.horizontal_flip = horizontal_flip
        self.dequantize = dequantize
        self.label_drop = label_drop
        self.condition_drop = condition_drop
        self.seed = seed
        self._streams: dict[tuple[Purpose, torch.device], Stream] = {}

    def draw_from(self, seed: int) -> None:
        """Draw everything from another seed from here on."""
        self.seed = seed
        self._streams.clear()

    def __call__(
        self, images: Tensor, step: int, indices: range, window: tuple[int, int] | None = None
    ) -> Tensor:
        """uint8 [B, C, H, W] to float32 in [-1, 1], cut and mirrored alike in all channels.

        Args:
            images: of these indices.
            step: the optimizer step, from 0.
            indices: in the global batch, B of them.
            window: (height, width) of the part that is kept of each, another one each time; None keeps all.
        """
        if window is not None:
            u = self._stream(Purpose.CROP, images).uniform(step, indices, (2,))
            images = windows(images, u, window)
        x_0 = normalize(images)
        if self.horizontal_flip:
            u = self._stream(Purpose.FLIP, images).uniform(step, indices)
            x_0 = torch.where((u < 0.5).view(-1, 1, 1, 1), x_0.flip(-1), x_0)
        return x_0

    def dequantized(self, x_0: Tensor, step: int, indices: range) -> Tensor:
        """x_0 [B, C, H, W] of these indices, dequantized where that is asked for. Conditions keep their
        levels, as a validation shows them.
        """
        if not self.dequantize:
            return x_0
        u = self._stream(Purpose.DEQUANTIZATION, x_0).uniform(step, indices, tuple(x_0.shape[1:]))
        levels = ((x_0 + 1) * 127.5).round()
        return (levels + u) / 128 - 1

    def drop_labels(self, labels: Tensor, step: int, indices: range) -> Tensor:
        """The labels int64 [B] of these indices, `NO_LABEL` in place of those that are withheld."""
        if not self.label_drop:
            return labels
        u = self._stream(Purpose.LABEL_DROP, labels).uniform(step, indices)
        return labels.masked_fill(u < self.label_drop, NO_LABEL)

    def drop_condition(self, condition: Condition, step: int, indices: range) -> Condition:
        """The conditions of these indices, without those that are withheld."""
        present = next((part for part in condition if part is not None), None)
        if not self.condition_drop or present is None:
            return condition
        u = self._stream(Purpose.LABEL_DROP, present).uniform(step, indices)
        return condition.withheld(u < self.condition_drop)

    def _stream(self, purpose: Purpose, like: Tensor) -> Stream:
        """The random numbers of a purpose on a tensor's device, made once: a CUDA generator costs time."""
        key = purpose, like.device
        if key not in self._streams:
            self._streams[key] = Stream(self.seed, purpose, like.device)
        return self._streams[key]
