"""The handwritten digits that ship with scikit-learn: real images that need no download."""

import numpy as np

from ddpm.data.holdout import split
from ddpm.data.images import DataSet, ImageSet


class Digits:
    """1,797 grey images of 8x8 in ten classes (Alpaydin and Kaynak 1998); every fifth is held out."""

    def read(self) -> DataSet:
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        labelled = ImageSet(images, digits.target.astype(np.int64))
        return split(labelled, 0.2, [str(digit) for digit in range(10)])
