"""The handwritten digits that ship with scikit-learn: real pictures that need no download."""

import numpy as np

from ddpm.data.module import ImageDataModule
from ddpm.data.pictures import DataSet, Pictures, split


class Digits(ImageDataModule):
    """1,797 grey pictures of 8x8 in ten classes (Alpaydin and Kaynak 1998); every fifth is held out.

    Args:
        batch_size: pictures an optimizer step, over all devices.
        num_workers: processes that prepare batches.
        seed: of the run.
    """

    def __init__(self, batch_size: int = 64, *, num_workers: int = 0, seed: int = 0):
        super().__init__(batch_size=batch_size, num_workers=num_workers, seed=seed)

    def read(self) -> DataSet:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        pictures = Pictures(images, digits.target.astype(np.int64))
        return split(pictures, 0.2, [str(digit) for digit in range(10)])
