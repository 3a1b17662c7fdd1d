"""Pixels are features as they are."""

import pytest
import torch

from ddpm.data.sources.digits import Digits
from ddpm.evaluation.extractors.pixels import Pixels


def test_they_are_the_values_of_the_image():
    data = Digits().read()
    extractor = Pixels()
    extractor.prepare(data, "cpu")
    images = torch.from_numpy(data.train.images[:3])
    assert torch.equal(extractor(images), images.reshape(3, 64) / 255)
    assert extractor.about() == {
        "extractor": "pixels",
        "checksum": "",
        "resize": "none",
        "features": 64,
        "precision": "float32",
    }
    with pytest.raises(ValueError, match="extractor=pixels: images of 192 values, not of 64"):
        extractor(images.repeat(1, 3, 1, 1))
