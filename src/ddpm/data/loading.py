"""From indices to batches: read from the set by any process, or gathered where the set lives on a device."""

import warnings

import numpy as np
import torch
from torch.utils.data import Dataset

from ddpm.data.batches import Batch, BatchIndices, in_order
from ddpm.data.images import ImageSet
from ddpm.diffusion.condition import Condition

COPIED_AT_ONCE = 4096
"""Images that are copied to a device together."""


def read(images: ImageSet, wanted: BatchIndices) -> Batch:
    """The batch of these indices, in memory of its own."""
    chosen = images.copy(np.asarray(wanted.indices))
    labels = None if chosen.labels is None else torch.from_numpy(chosen.labels)
    condition = None if chosen.vectors is None else Condition(vector=torch.from_numpy(chosen.vectors))
    return Batch(torch.from_numpy(chosen.images), labels, wanted.step, wanted.first, condition)


class BatchReader(Dataset[Batch]):
    """Reads the batch of given indices from a set, in this process or in a worker's."""

    def __init__(self, images: ImageSet):
        self.images = images

    def __getitem__(self, wanted: BatchIndices) -> Batch:
        return read(self.images, wanted)


class IndicesOnly(Dataset[BatchIndices]):
    """Stands for the reader where the set lives on the device: hands on the indices, as a tensor."""

    def __getitem__(self, wanted: BatchIndices) -> BatchIndices:
        return wanted._replace(indices=torch.as_tensor(wanted.indices))


class ImagesOnDevice:
    """A set that lives on a device. On a CPU it stays where it is, in memory or mapped."""

    def __init__(self, images: ImageSet, device: torch.device):
        if device.type == "cpu":
            with warnings.catch_warnings(action="ignore"):  # that the map is read-only, which we respect
                self.images = torch.from_numpy(images.images)
        else:
            self.images = torch.empty(
                images.images.shape,
                dtype=torch.float32 if images.images.dtype == np.float32 else torch.uint8,
                device=device,
            )
            for part in in_order(range(len(images)), size=COPIED_AT_ONCE):
                here = slice(part.first, part.first + len(part.indices))
                self.images[here] = torch.from_numpy(np.array(images.images[here]))
            images.release()
        labels = None if images.labels is None else np.array(images.labels)
        self.labels = None if labels is None else torch.from_numpy(labels).to(device)
        vectors = None if images.vectors is None else np.array(images.vectors)
        self.vectors = None if vectors is None else torch.from_numpy(vectors).to(device)

    def gather(self, wanted: BatchIndices) -> Batch:
        """The batch of these indices, which are on this device too."""
        labels = None if self.labels is None else self.labels[wanted.indices]
        condition = None if self.vectors is None else Condition(vector=self.vectors[wanted.indices])
        return Batch(self.images[wanted.indices], labels, wanted.step, wanted.first, condition)
