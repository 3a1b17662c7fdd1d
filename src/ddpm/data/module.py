"""The LightningDataModule: global batches of any source's images, for any number of devices."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch.utils.data import DataLoader, Dataset

from ddpm.data.augmentation import Augmentation, normalize
from ddpm.data.batches import Batch, BatchIndices, EndlessBatches, MicroBatches, in_order, share
from ddpm.data.conditions import Conditioning, Derived, Stored
from ddpm.data.conditions.reading import reading
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.loading import BatchReader, ImagesOnDevice, IndicesOnly, read
from ddpm.data.skipped import write_list
from ddpm.data.sources import Source
from ddpm.data.stream.images import StreamedImages
from ddpm.data.stream.loader import StreamLoader
from ddpm.data.workers import WorkerLoader
from ddpm.diffusion.condition import Condition
from ddpm.random import Purpose, Stream, rekeyed
from ddpm.runtime.cores import available_cores
from ddpm.runtime.memory import memory_of

logger = logging.getLogger(__name__)

MOST_WORKERS = 8
"""That are started for a device unless more are asked for."""


class ImageDataModule(LightningDataModule):
    """Batches of a source's images.

    Which images a batch holds depends on the seed and the step alone: index i of the global batch of step s
    is draw s * batch_size + i (see `ddpm.random`), whichever device shows it. Shards that are streamed have
    an order of their own, which depends on the same (see `ddpm.data.sources.shard_stream`).

    A set that takes at most `device_share` of the device's memory lives there as bytes, and its batches are
    gathered there. The batches of a larger one are read by worker processes, ahead of time and into pinned
    memory. On a CPU, to live on the device is to stay where it is.

    Args:
        source: of the images; `read` is called once, on first use.
        batch_size: images an optimizer step, over all devices and micro-batches.
        horizontal_flip: mirror every other image, at random, in training.
        dequantize: spread each level of brightness over its width by uniform noise, in training.
        label_drop: share of the labels that are withheld from the network in training, in [0, 1].
        condition: what else the network is conditioned on; None for nothing.
        condition_drop: share of the conditions that are withheld in training, in [0, 1]: of the same images
            as labels, as far as both are.
        device_share: of the device's memory, in [0, 1]; 0 keeps every set off the device.
        num_workers: processes a device that prepare batches of a set that does not live on it; 0 prepares
            them in the training process, None chooses by the number of cores.
        seed: of the run.

    Raises:
        ValueError: for settings that cannot be; from `data_set`, what the source raises.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int = 64,
        *,
        horizontal_flip: bool = False,
        dequantize: bool = False,
        label_drop: float = 0.0,
        condition: Conditioning | None = None,
        condition_drop: float = 0.0,
        device_share: float = 0.25,
        num_workers: int | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"data.batch_size={batch_size} must be at least 1")
        if not 0 <= device_share <= 1:
            raise ValueError(f"data.device_share={device_share} must be in [0, 1]")
        if num_workers is not None and num_workers < 0:
            raise ValueError(f"data.num_workers={num_workers} must be at least 0, or null to choose")
        for name, share_of_it in (("label_drop", label_drop), ("condition_drop", condition_drop)):
            if not 0 <= share_of_it <= 1:
                raise ValueError(f"data.{name}={share_of_it} must be in [0, 1]")
        if condition_drop and condition is None:
            raise ValueError(
                f"data.condition_drop={condition_drop}: there is no condition to withhold; leave it at 0, or "
                "give one, such as condition=downsampled"
            )
        self.source = reading(source, condition) if isinstance(condition, Stored) else source
        self.batch_size = batch_size
        self.device_share = device_share
        self.num_workers = num_workers
        self.label_drop = label_drop
        self.condition = condition
        self.condition_drop = condition_drop
        self.seed = self._own_seed = seed
        self.augmentation = Augmentation(
            horizontal_flip=horizontal_flip,
            dequantize=dequantize,
            label_drop=label_drop,
            condition_drop=condition_drop,
            seed=seed,
        )
        self.repeat: int | None = None
        self._on_device: dict[bool, ImagesOnDevice] = {}

    def draw_anew(self, rollbacks: int) -> None:
        """Draw the order of images and their random changes with the key that a run has after so many
        returns to a checkpoint; 0 is the key of its seed.
        """
        self.seed = rekeyed(self._own_seed, rollbacks)
        self.augmentation.draw_from(self.seed)

    def train_on(self, batches: float) -> None:
        """Train on the images of the first global batches only, again and again (Lightning's
        `limit_train_batches`).

        Args:
            batches: how many, as an int; or as a float in (0, 1] the share of those of one pass, 1.0 for all.

        Raises:
            ValueError: for images that are streamed, whose batches are not known beforehand.
        """
        if isinstance(batches, float) and batches == 1:
            return
        if isinstance(self.data_set.train, StreamedImages):
            raise ValueError(
                "trainer.limit_train_batches: images that are streamed come in an endless order; take fewer "
                "shards with data.path"
            )
        if isinstance(batches, float):
            batches = batches * len(self.data_set.train) / self.batch_size
        self.repeat = max(1, int(batches))

    def measured_batches(self, batches: float) -> int:
        """The batches of a validation on some of the held-out images only (Lightning's `limit_val_batches`).

        Args:
            batches: how many, as an int; or as a float in [0, 1] the share of them, of which at least one is
                taken.
        """
        if isinstance(batches, int) or not batches:
            return int(batches)
        return max(1, int(batches * -(-len(self.data_set.validation) // self.batch_size)))

    @cached_property
    def data_set(self) -> DataSet:
        """The images, read on first use."""
        found = self.source.read()
        if found.window is not None:
            found = replace(found, validation=found.validation.centre(found.window))
        if self.label_drop and found.classes is None:
            raise ValueError(f"data.label_drop={self.label_drop}: these images have no labels; leave it at 0")
        if found.latents is not None and self.augmentation.dequantize:
            raise ValueError("data.dequantize=true: latents have no levels of brightness; leave it out")
        if isinstance(self.condition, Derived):
            if found.latents is not None:
                raise ValueError(
                    "data.condition: is made of images in [-1, 1], and these are latents; use condition=none"
                )
            self.condition.check(found.image_shape)
        if isinstance(found.train, StreamedImages):
            found.train.check_shared(self.batch_size, world_size=1, accumulation=1)
        return found

    def order_classes(self, classes: Sequence[str]) -> None:
        """Number the classes in this order, which is that of a run, whatever order names are put in today.

        Raises:
            ValueError: for other classes, and images that are streamed.
        """
        self.data_set = self.data_set.with_classes(classes)

    def standardise_by(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Show numbers that images are conditioned on as a run has seen them, however they are spread here.

        Args:
            mean: of each number, of the images that the run was trained on.
            std: their deviations.
        """
        self._spread_of_vectors = torch.tensor(mean), torch.tensor(std)

    @property
    def fingerprint(self) -> str:
        """A hash of the images and labels, the same on every machine."""
        return self.data_set.fingerprint

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees."""
        return self.data_set.image_shape

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known about the images, in plain containers: see `ddpm.data.images.survey`."""
        return self.data_set.facts

    @property
    def skipped(self) -> Sequence[tuple[str, str]]:
        """Name and reason of everything that could not be read and was left out. Of a stream, so far and on
        this device; once training ends by itself, on all of them.
        """
        return list(self.data_set.skipped)

    def write_skipped(self, directory: Path) -> None:
        """List what was left out in `skipped.txt`, a line each; writes nothing where it is nothing."""
        write_list(self.skipped, directory)

    def check_shared(self, *, world_size: int, accumulation: int) -> None:
        """Refuse, with ValueError, numbers of devices and micro-batches that a batch cannot be shared by."""
        share(self.batch_size, world_size=world_size, accumulation=accumulation)
        train = self.data_set.train
        if isinstance(train, StreamedImages):
            train.check_shared(self.batch_size, world_size=world_size, accumulation=accumulation)

    def train_dataloader(self) -> Iterable[Batch | BatchIndices]:
        """Micro-batches of this device from the trainer's current step on, without end."""
        trainer = self._attached_trainer
        rank, world_size = trainer.global_rank, trainer.world_size
        accumulation = trainer.accumulate_grad_batches
        train = self.data_set.train
        if isinstance(train, StreamedImages):
            return StreamLoader(
                train,
                batch_size=self.batch_size,
                seed=self.seed,
                rank=rank,
                world_size=world_size,
                accumulation=accumulation,
                step=trainer.global_step,
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
            )
        micro_batches = MicroBatches(
            len(train),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
            accumulation=accumulation,
            repeat=self.repeat,
        )
        return self._loader(train, EndlessBatches(micro_batches, trainer.global_step * accumulation))

    def val_dataloader(self) -> Iterable[Batch | BatchIndices]:
        """This device's part of the validation set, every image once over all devices."""
        images = self.data_set.validation
        rank, world_size = self._attached_trainer.global_rank, self._attached_trainer.world_size
        mine = range(len(images) * rank // world_size, len(images) * (rank + 1) // world_size)
        batches = in_order(mine, size=max(1, self.batch_size // world_size))
        if len(images) and not batches:  # a device that took no part would keep the others waiting
            batches = [BatchIndices(np.arange(0), 0, mine.start)]
        return self._loader(images, batches) if batches else []

    def _loader(self, images: ImageSet, batches: EndlessBatches | list[BatchIndices]) -> DataLoader[Any]:
        resident = self.lives_on_device
        num_workers = 0 if resident else self._workers
        reader: Dataset[Any] = IndicesOnly() if resident else BatchReader(images)
        return WorkerLoader(
            reader,
            sampler=batches,
            num_workers=num_workers,
            pin_memory=self._device.type == "cuda",
            persistent_workers=num_workers > 0,
        )

    @property
    def _workers(self) -> int:
        return self._chosen_workers if self.num_workers is None else self.num_workers

    @cached_property
    def _chosen_workers(self) -> int:
        """Every core that is left to this device beside the training process, up to a few."""
        trainer = self._attached_trainer
        cores, devices = available_cores(), max(1, trainer.world_size // trainer.num_nodes)
        chosen = max(0, min(MOST_WORKERS, cores // devices - 1))
        if trainer.global_rank == 0:
            logger.info(
                "data.num_workers=%d for each device, chosen by the %d cores of this machine", chosen, cores
            )
        return chosen

    @property
    def _attached_trainer(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError(
                "an ImageDataModule makes batches for a trainer: trainer.fit(..., datamodule=)"
            )
        return self.trainer

    @property
    def _device(self) -> torch.device:
        return self._attached_trainer.strategy.root_device

    @property
    def lives_on_device(self) -> bool:
        """Whether the set takes at most its share of the memory of the trainer's device. A stream never
        does.
        """
        return self.bytes_on(self._device) is not None

    def bytes_on(self, device: torch.device) -> int | None:
        """Bytes that the set takes of the memory of a device that it lives on; None where it does not."""
        train = self.data_set.train
        if isinstance(train, StreamedImages):
            return None
        parts = (train, self.data_set.validation)
        needed = sum(
            array.nbytes for part in parts for array in (part.images, part.vectors) if array is not None
        )
        return needed if needed <= self.device_share * memory_of(device) else None

    def transfer_batch_to_device(
        self, batch: Batch | BatchIndices, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Move a batch, or gather it from the set if that lives there."""
        batch = super().transfer_batch_to_device(batch, device, dataloader_idx)
        if isinstance(batch, Batch):
            return batch
        training = bool(self._attached_trainer.training)
        if training not in self._on_device:
            part = self.data_set.train if training else self.data_set.validation
            assert isinstance(part, ImageSet)  # nothing else lives on a device
            self._on_device[training] = ImagesOnDevice(part, device)
        return self._on_device[training].gather(batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """On the device: bytes to [-1, 1], and the random changes of training."""
        if not self._attached_trainer.training:
            return self._conditioned(batch._replace(x_0=normalize(batch.x_0)), None)
        x_0 = self.augmentation(batch.x_0, batch.step, batch.indices, self.data_set.window)
        batch = self._conditioned(batch._replace(x_0=x_0), self.seed)
        batch = batch._replace(x_0=self.augmentation.dequantized(batch.x_0, batch.step, batch.indices))
        if batch.condition is not None:
            dropped = self.augmentation.drop_condition(batch.condition, batch.step, batch.indices)
            batch = batch._replace(condition=dropped)
        if batch.labels is None:
            return batch
        labels = self.augmentation.drop_labels(batch.labels, batch.step, batch.indices)
        return batch._replace(labels=labels)

    def _conditioned(self, batch: Batch, seed: int | None) -> Batch:
        """A batch with the condition of each image, its x_0 without what was stored beside it.

        Args:
            batch: normalised.
            seed: of what is random in a condition; None for what is the same in every run, by index alone.
        """
        x_0, condition = batch.x_0, batch.condition
        if isinstance(self.condition, Derived):
            key, step = (0, 0) if seed is None else (seed, batch.step)
            stream = Stream(key, Purpose.CONDITION, x_0.device)
            condition = self.condition(x_0, stream.uniform(step, batch.indices, (self.condition.draws,)))
        elif self.condition is not None:
            vector = None if condition is None else condition.vector
            if vector is not None:
                mean, std = (values.to(vector.device) for values in self._spread_of_vectors)
                vector = (vector - mean) / std
            channels = self.data_set.condition_channels
            image = x_0[:, -channels:] if channels else None
            x_0 = x_0[:, : x_0.shape[1] - channels]
            condition = Condition(image, vector)
        return batch._replace(x_0=x_0, condition=condition)

    @cached_property
    def _spread_of_vectors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each number of the training images' vectors, float32 [D]; 1 in place
        of a deviation of 0.
        """
        known = self.facts["vector"]
        return torch.tensor(known["mean"]), torch.tensor(known["std"])

    @property
    def condition_sizes(self) -> tuple[int, int]:
        """Channels of the image that the network is conditioned on, and numbers of the vector; 0 for none."""
        if self.condition is None:
            return 0, 0
        train = self.data_set.train
        vectors = train.vectors if isinstance(train, ImageSet) else None
        channels = self.data_set.condition_channels
        if isinstance(self.condition, Derived):
            channels = self.condition.image_channels(self.image_shape[0])
        return channels, 0 if vectors is None else vectors.shape[1]

    @property
    def about_condition(self) -> dict[str, Any]:
        """What the network is conditioned on beside the class, in plain containers: `kind`; `image_channels`
        and `vector_size`, 0 for none; of a vector `names`, and `mean` and `std`: the network sees
        (v - mean) / std.
        """
        channels, size = self.condition_sizes
        about = {"kind": type(self.condition).__name__, "image_channels": channels, "vector_size": size}
        if size:
            about |= {name: self.facts["vector"][name] for name in ("names", "mean", "std")}
        return about

    def held_out(self, indices: Sequence[int]) -> Batch:
        """Images that are held out, in turn, as a validation shows them: normalised, with their labels and
        conditions, on the CPU. Where none is held out, images that are trained on.

        Args:
            indices: each at least 0; beyond the last image they begin again with the first.

        Raises:
            ValueError: for a stream without images that are held out.
        """
        images = self._shown
        batches = [
            read(images, BatchIndices(np.arange(run.start, run.stop), 0, run.start))
            for run in _neighbours(indices, len(images))
        ]
        shown = [self._conditioned(one._replace(x_0=normalize(one.x_0)), None) for one in batches]
        conditions = [one.condition for one in shown if one.condition is not None]
        return Batch(
            torch.cat([one.x_0 for one in shown]),
            None if shown[0].labels is None else torch.cat([_present(one.labels) for one in shown]),
            0,
            0,
            Condition(*map(_joined, zip(*conditions, strict=True))) if conditions else None,
        )

    def labels_held_out(self, indices: Sequence[int]) -> list[int] | None:
        """The labels of the images that `held_out` gives; None where there are no classes."""
        labels = self._shown.labels
        return None if labels is None else labels[np.asarray(indices) % len(labels)].tolist()

    @property
    def _shown(self) -> ImageSet:
        """What `held_out` shows."""
        images = self.data_set.validation if len(self.data_set.validation) else self.data_set.train
        if not isinstance(images, ImageSet):
            raise ValueError(
                "data.condition: no image of this stream is held out whose condition samples could be drawn "
                "under; hold some out by data.validation_size=64"
            )
        if images is self.data_set.train and self.data_set.window is not None:
            images = images.centre(self.data_set.window)
        return images

    def teardown(self, stage: str) -> None:
        """Free the device's memory; learn what other devices could not read of a stream."""
        self._on_device.clear()
        if "data_set" in vars(self) and isinstance(self.data_set.train, StreamedImages):
            self.data_set.train.gather_skipped()


def _neighbours(indices: Sequence[int], count: int) -> list[range]:
    """The same indices, in turn of so many, those that follow each other together."""
    found: list[range] = []
    for index in (i % count for i in indices):
        if found and found[-1].stop == index:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


def _joined(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _present(part: torch.Tensor | None) -> torch.Tensor:
    assert part is not None
    return part
