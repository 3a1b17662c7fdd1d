"""The handwritten digits that ship with scikit-learn: real pictures that need no download."""

import numpy as np

from ddpm.data.module import ImageDataModule
from ddpm.data.pictures import DataSet, Pictures, split


class Digits(ImageDataModule):
    """1,797 grey pictures of 8x8 in ten classes (Alpaydin and Kaynak 1998); every fifth is held out.

    Args:
        batch_size: pictures an optimizer step, over all devices.
        dequantize: spread each level of brightness over its width by uniform noise, in training.
        label_drop: share of the labels that are withheld from the network in training, in [0, 1].
        device_share: the set lives on the device if it takes at most this share of its memory.
        num_workers: processes that prepare batches of a set that does not.
        seed: of the run.
    """

    def __init__(
        self,
        batch_size: int = 64,
        *,
        dequantize: bool = False,
        label_drop: float = 0.0,
        device_share: float = 0.25,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(
            batch_size=batch_size,
            dequantize=dequantize,
            label_drop=label_drop,
            device_share=device_share,
            num_workers=num_workers,
            seed=seed,
        )

    def read(self) -> DataSet:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        pictures = Pictures(images, digits.target.astype(np.int64))
        return split(pictures, 0.2, [str(digit) for digit in range(10)])
