"""Sizes in a few numbers: sizes that are there, with as many images below as is said."""

import numpy as np

from ddpm.data.prepared.quantiles import SHARES, quantiles


def test_as_many_images_are_below_as_is_said():
    sizes = np.random.RandomState(0).randint(1, 4000, (997, 2))
    found = quantiles(sizes)
    for numbers, key in ((sizes[:, 0], "height"), (sizes[:, 1], "width")):
        for share, number in zip(SHARES, found[key], strict=True):
            assert number in numbers
            assert (numbers <= number).mean() >= share
            assert (numbers < number).mean() <= share
    aspects = sizes[:, 1] / sizes[:, 0]
    assert found["aspect"][0] == round(aspects.min(), 3)
    assert found["aspect"][-1] == round(aspects.max(), 3)


def test_of_a_single_image_they_are_its_size():
    assert quantiles(np.array([[30, 40]])) == {"height": [30] * 5, "width": [40] * 5, "aspect": [1.333] * 5}
