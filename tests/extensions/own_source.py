"""A source as somebody else would write it, in a package of their own."""

from dataclasses import dataclass

import numpy as np

from ddpm.data.holdout import split
from ddpm.data.images import DataSet, ImageSet


@dataclass(frozen=True)
class Gradients:
    """Images that grow brighter from left to right, each from another level on."""

    count: int
    size: int = 8

    def read(self) -> DataSet:
        levels = np.arange(self.count)[:, None, None, None] + np.arange(self.size)
        images = np.broadcast_to(levels, (self.count, 1, self.size, self.size)).astype(np.uint8)
        return split(ImageSet(images), 0.1, None)
