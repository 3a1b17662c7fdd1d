import numpy as np

from ddpm.data.images import ImageSet
from ddpm.data.sources.digits import Digits


def test_digits_are_the_real_ones_and_every_fifth_is_held_out():
    data_set = Digits().read()
    assert isinstance(data_set.train, ImageSet)
    assert data_set.train.image_shape == (1, 8, 8)
    assert (len(data_set.train), len(data_set.validation)) == (1437, 360)
    assert data_set.classes == [str(i) for i in range(10)]
    assert np.bincount(data_set.train.labels, minlength=10).min() > 100
    assert data_set.train.images.max() == 255
    images = [image.tobytes() for part in (data_set.train, data_set.validation) for image in part.images]
    assert len(set(images)) == 1797  # no image is in both parts
    assert data_set.fingerprint == Digits().read().fingerprint == "4f7dfe8a19c3e9ed"
