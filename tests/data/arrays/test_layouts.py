"""The shapes that arrays of images have."""

import numpy as np
import pytest

from ddpm.data.arrays.layouts import is_plain, layout_of, layouts


@pytest.mark.parametrize(
    ("shape", "counts", "name", "image"),
    [
        ((20, 8, 9, 3), (), "[N, H, W, C]", (8, 9, 3)),
        ((20, 8, 9, 4), (), "[N, H, W, C]", (8, 9, 4)),
        ((20, 3, 8, 9), (), "[N, C, H, W]", (8, 9, 3)),
        ((20, 1, 8, 9), (), "[N, C, H, W]", (8, 9, 1)),
        ((20, 3, 8, 3), (), "[N, H, W, C]", (3, 8, 3)),
        ((8, 9, 3, 20), (), "[H, W, C, N]", (8, 9, 3)),
        ((20, 9, 3, 1), (), "[N, H, W, C]", (9, 3, 1)),
        ((8, 9, 1, 3), (3,), "[H, W, C, N]", (8, 9, 1)),
        ((20, 8, 9), (), "[N, H, W]", (8, 9, 1)),
        ((8, 9, 20), (20,), "[H, W, N]", (8, 9, 1)),
        ((20, 9, 20), (20,), "[N, H, W]", (9, 20, 1)),
        ((20, 784), (), "[N, H x W]", (28, 28, 1)),
        ((20, 3072), (), "[N, C x H x W]", (32, 32, 3)),
        ((784, 20), (), "[H x W, N]", (28, 28, 1)),
        ((784, 400), (), "[N, H x W]", (20, 20, 1)),
        ((784, 400), (400,), "[H x W, N]", (28, 28, 1)),
        ((3072, 50), (50,), "[C x H x W, N]", (32, 32, 3)),
    ],
)
def test_the_likeliest(shape: tuple[int, ...], counts: tuple[int, ...], name: str, image: tuple[int, ...]):
    layout = layout_of(shape, counts)
    assert layout is not None
    assert (layout.name, layout.shape, layout.count) == (name, image, shape[layout.axis])


@pytest.mark.parametrize("shape", [(), (5,), (8, 9, 3), (0, 8, 8), (20, 7), (5, 5, 5, 5), (1, 2, 3, 4, 5)])
def test_none(shape: tuple[int, ...]):
    assert layout_of(shape, ()) is None


def test_every_layout_puts_each_pixel_where_it_belongs():
    images = np.arange(20 * 8 * 8 * 3).reshape(20, 8, 8, 3)
    as_kept = {
        "[N, H, W, C]": images,
        "[N, C, H, W]": images.transpose(0, 3, 1, 2),
        "[H, W, C, N]": images.transpose(1, 2, 3, 0),
        "[N, C x H x W]": images.transpose(0, 3, 1, 2).reshape(20, -1),
        "[C x H x W, N]": images.transpose(0, 3, 1, 2).reshape(20, -1).T,
        "[N, H, W]": images[..., 0],
        "[H, W, N]": images[..., 0].transpose(1, 2, 0),
        "[N, H x W]": images[..., 0].reshape(20, -1),
        "[H x W, N]": images[..., 0].reshape(20, -1).T,
    }
    for name, array in as_kept.items():
        layout = next(one for one in layouts(array.shape) if one.name == name)
        expected = images if "C" in name else images[..., :1]
        np.testing.assert_array_equal(layout.turned(np.moveaxis(array, layout.axis, 0)), expected)


def test_what_needs_no_word():
    for shape, plain in (
        ((20, 8, 9, 3), True),
        ((20, 8, 9), True),
        ((20, 3, 9, 3), False),
        ((20, 64), False),
    ):
        layout = layout_of(shape, ())
        assert layout is not None
        assert is_plain(shape, layout) == plain
