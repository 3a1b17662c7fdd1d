"""Resizing is TensorFlow 1's."""

import math

import pytest
import torch
from seeded_weights import pictures
from torch import Tensor

from ddpm.evaluation.extractors.tf_resize import resize


def slowly(image: Tensor, height: int, width: int) -> Tensor:
    """The rule, pixel by pixel: float64 [H, W] to [height, width]."""
    found = torch.empty(height, width, dtype=torch.float64)
    old_height, old_width = image.shape
    for i in range(height):
        for j in range(width):
            y, x = i * old_height / height, j * old_width / width
            top, left = math.floor(y), math.floor(x)
            bottom, right = min(top + 1, old_height - 1), min(left + 1, old_width - 1)
            above = image[top, left] + (image[top, right] - image[top, left]) * (x - left)
            below = image[bottom, left] + (image[bottom, right] - image[bottom, left]) * (x - left)
            found[i, j] = above + (below - above) * (y - top)
    return found


@pytest.mark.parametrize(("old", "new"), [((5, 7), (11, 4)), ((8, 8), (29, 29)), ((1, 3), (4, 4))])
def test_every_pixel_follows_the_rule(old: tuple[int, int], new: tuple[int, int]):
    image = pictures(1, *old)[0, 0].double()
    torch.testing.assert_close(
        resize(image[None, None].float(), *new)[0, 0].double(), slowly(image, *new), atol=1e-3, rtol=0
    )


def test_the_published_example():
    """2x2 to 4x4, as TensorFlow 1 documents align_corners=False."""
    image = torch.tensor([[1.0, 2], [3, 4]])
    expected = [[1, 1.5, 2, 2], [2, 2.5, 3, 3], [3, 3.5, 4, 4], [3, 3.5, 4, 4]]
    assert resize(image[None, None], 4, 4)[0, 0].tolist() == expected


def test_it_is_not_the_resize_of_torch():
    image = pictures(1)[:, :1].float()
    other = torch.nn.functional.interpolate(image, (299, 299), mode="bilinear", align_corners=False)
    assert (resize(image, 299, 299) - other).abs().max() > 1


def test_the_same_size_stays_as_it_is():
    image = pictures(1, 9, 13).float()
    assert torch.equal(resize(image, 9, 13), image)
