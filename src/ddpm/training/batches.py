"""What a trainer hands to a step: batches of ours, or of anybody's DataLoader made into ours."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.data.augmentation import Augmentation, normalize
from ddpm.data.batches import Batch
from ddpm.networks.inputs import NO_LABEL
from ddpm.random import permutation

log = logging.getLogger(__name__)

IMAGES, LABELS = ("image", "images"), ("label", "labels")
"""Keys of a batch that is a mapping; others are left alone."""

GOLDEN_RATIO = 0.6180339887498949


class Part(NamedTuple):
    """A device's micro-batch in training.

    Attributes:
        batch: its images, labels and indices.
        micro_batch: its number within the optimizer step.
        stratum: its indices among the images whose timesteps are spread together.
        strata: how many those are: the global batch; of somebody's own DataLoader, whose last step may have
            fewer micro-batches, this micro-batch on all devices.
        images_per_step: over all devices and micro-batches.
    """

    batch: Batch
    micro_batch: int
    stratum: range
    strata: int
    images_per_step: int


class TrainerBatches:
    """Reads the batches of a trainer: those of `ddpm.data`, and those of any DataLoader, see `Counted`.

    Args:
        image_shape: (C, H, W).
        num_classes: of the network; None for an unconditional one.
        label_drop: how often training withholds a label of somebody's own DataLoader; batches of ours come
            without theirs.
        seed: of the run.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int | None, *, label_drop: float, seed: int
    ):
        self._training = Counted(image_shape, num_classes)
        self._held_out = Counted(image_shape, num_classes)
        self._drop = Augmentation(label_drop=label_drop, seed=seed)

    def draw_from(self, seed: int) -> None:
        """Withhold labels by another seed from here on."""
        self._drop.draw_from(seed)

    def training(self, batch: Any, batch_idx: int, trainer: Trainer) -> Part:
        """Batch number `batch_idx` of this device."""
        rank, world_size, accumulation = (
            trainer.global_rank,
            trainer.world_size,
            trainer.accumulate_grad_batches,
        )
        micro_batch = batch_idx % accumulation
        if isinstance(batch, Batch):
            images = len(batch.x_0) * world_size * accumulation
            return Part(batch, micro_batch, batch.indices, images, images)
        counted = self._training(
            batch,
            step=trainer.global_step,
            begins=micro_batch == 0,
            first=batch_idx == 0,
            rank=rank,
            world_size=world_size,
        )
        if counted.labels is not None:
            labels = self._drop.drop_labels(counted.labels, counted.step, counted.indices)
            counted = counted._replace(labels=labels)
        size = len(counted.x_0)
        stratum = range(rank * size, (rank + 1) * size)
        return Part(counted, micro_batch, stratum, size * world_size, size * world_size * accumulation)

    def size(self, batch: Any) -> int:
        """Images of a batch."""
        return len(batch.x_0 if isinstance(batch, Batch) else _parts(batch)[0])

    def held_out(self, batch: Any, batch_idx: int, trainer: Trainer) -> tuple[Batch, Tensor]:
        """Batch number `batch_idx` of a validation or test, and where in the chain each image is measured:
        float64 [B] in [0, 1), on the CPU, the same in every run.

        Those of a whole validation set of ours are stratified: one in each of N equal parts of the chain.
        Those of somebody's own, whose size may be unknown, are a Kronecker sequence, of which any number of
        neighbours is spread evenly.
        """
        if isinstance(batch, Batch):
            attached: Any = trainer  # its data module has no type
            total = len(attached.datamodule.data_set.validation)
            order = permutation(0, 0, total, np.asarray(batch.indices))
            return batch, (torch.from_numpy(order) + 0.5) / total
        counted = self._held_out(
            batch,
            step=0,
            begins=batch_idx == 0,
            first=batch_idx == 0,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        return counted, torch.from_numpy((np.asarray(counted.indices) + 0.5) * GOLDEN_RATIO % 1)


def images_of(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Images float32 [B, C, H, W] in [-1, 1] and labels int64 [B], or None, of a batch, to be looked at.

    Raises:
        ValueError: where it is no batch of images.
    """
    if isinstance(batch, Batch):
        return batch.x_0, batch.labels
    images, labels = _parts(batch)
    return normalize(images) if images.dtype == torch.uint8 else images.float(), labels


class Counted:
    """Reads batches of images and counts them, so that each image has an index of its own.

    A batch is a tensor of images, a list or tuple of images and labels, or a mapping with `image` or `images`
    and, where there are some, `label` or `labels`. Images are [B, C, H, W], uint8 or floats in [-1, 1];
    labels are integers [B].

    Args:
        image_shape: (C, H, W).
        num_classes: of the network; None for an unconditional one, which is given no labels.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int | None):
        self.image_shape = image_shape
        self.num_classes = num_classes
        self._counted = 0  # images of this rank since the count began

    def __call__(
        self, batch: Any, *, step: int, begins: bool, first: bool, rank: int, world_size: int
    ) -> Batch:
        """The batch as ours.

        Args:
            batch: of a DataLoader.
            step: of the optimizer.
            begins: whether the count of indices starts anew with it.
            first: whether its values are looked at too, for which the device is waited for.
            rank: of this process; batches of all ranks are equally large.
            world_size: how many ranks there are.

        Raises:
            ValueError: where these are no images or labels for the network.
        """
        images, labels = _parts(batch)
        self._check_shapes(images, labels)
        if first:
            self._check_values(images, labels)
        if begins:
            self._counted = 0
        index = self._counted * world_size + rank * len(images)
        self._counted += len(images)
        x_0 = normalize(images) if images.dtype == torch.uint8 else images.float()
        return Batch(x_0, None if labels is None or self.num_classes is None else labels.long(), step, index)

    def _check_shapes(self, images: Tensor, labels: Tensor | None) -> None:
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images are {list(images.shape)}, and the module was made for [B, "
                f"{', '.join(map(str, self.image_shape))}] (image_shape={self.image_shape})"
            )
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}; they must be uint8, or floats in [-1, 1]")
        if self.num_classes is None:
            return
        if labels is None:
            raise ValueError(
                "the batch has no labels, and the network is conditional (classes=...); give (images, labels)"
            )
        integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
        if labels.shape != images.shape[:1] or not integers:
            raise ValueError(
                f"labels are {labels.dtype} {list(labels.shape)}; they must be integers [{len(images)}], the "
                "class of each image"
            )

    def _check_values(self, images: Tensor, labels: Tensor | None) -> None:
        if not len(images):
            return
        if images.is_floating_point():
            least, most = (float(value) for value in images.aminmax())
            if not -1.001 <= least <= most <= 1.001:  # resizing may leave a rounding error
                raise ValueError(
                    f"images are floats in [{least:g}, {most:g}]; they must be in [-1, 1], or uint8: from "
                    "[0, 255] take x / 127.5 - 1"
                )
            if least >= 0 and most > 0:
                log.warning(
                    "images are floats in [%g, %g], and none is below 0: the network learns [-1, 1], so from "
                    "[0, 1] take 2 * x - 1", least, most,
                )  # fmt: skip
        if labels is not None and self.num_classes is not None:
            least, most = (int(value) for value in labels.aminmax())
            if not NO_LABEL <= least <= most < self.num_classes:
                raise ValueError(
                    f"labels are {least} to {most}; classes are 0 to {self.num_classes - 1}, and "
                    f"{NO_LABEL} is none"
                )


def _parts(batch: Any) -> tuple[Tensor, Tensor | None]:
    """Images and labels."""
    if isinstance(batch, Mapping):
        found = [[batch[key] for key in keys if key in batch] for keys in (IMAGES, LABELS)]
        parts: Sequence[Any] = [values[0] for values in found if values]
        fits = len(found[0]) == 1 and len(found[1]) < 2
    else:
        parts = batch if isinstance(batch, list | tuple) else [batch]
        fits = len(parts) in (1, 2)
    if not fits or not all(isinstance(part, Tensor) for part in parts):
        held = [str(key) for key in batch] if isinstance(batch, Mapping) else [_kind(part) for part in parts]
        raise ValueError(
            "a batch must be a tensor of images, (images, labels), or a mapping with image and label; this "
            f"is a {type(batch).__name__} of {', '.join(held) or 'nothing'}"
        )
    return parts[0], parts[1] if len(parts) == 2 else None


def _kind(part: Any) -> str:
    return type(part).__name__
