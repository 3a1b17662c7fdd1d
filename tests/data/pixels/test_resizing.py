"""Crops and filters, held against filters written out in numpy."""

import numpy as np
import pytest
from PIL import Image

from ddpm.data.pixels.resizing import fit
from ddpm.data.pixels.shaping import Shaping

FILTERS = {
    "lanczos": (3.0, lambda x: np.sinc(x) * np.sinc(x / 3)),
    "bicubic": (
        2.0,
        lambda x: np.where(  # Keys 1981, a = -1/2
            abs(x) < 1, 1.5 * abs(x) ** 3 - 2.5 * x**2 + 1, -0.5 * abs(x) ** 3 + 2.5 * x**2 - 4 * abs(x) + 2
        ),
    ),
    "box": (0.5, lambda x: np.ones_like(x)),
}


def weights(count: int, first: float, last: float, wanted: int, resize: str) -> np.ndarray:
    """[wanted, count]: how pixels add up to those that the part from `first` to `last` becomes; NaN where a
    pixel's middle is an edge, and rounding decides which side it is on.
    """
    scale = (last - first) / wanted
    middles = first + (np.arange(wanted) + 0.5) * scale
    if resize == "nearest":
        found = np.zeros((wanted, count))
        found[np.arange(wanted), np.minimum(middles.astype(int), count - 1)] = 1
        found[abs(middles - middles.round()) < 1e-3] = np.nan
        return found
    reach, kernel = FILTERS[resize]
    distance = (np.arange(count) + 0.5 - middles[:, None]) / max(scale, 1)
    found = np.where(abs(distance) < reach, kernel(distance), 0)
    if resize == "box":
        found[abs(abs(distance) - reach) < 1e-3] = np.nan
    return found / found.sum(1, keepdims=True)


def expected(pixels: np.ndarray, shaping: Shaping) -> list[np.ndarray]:
    """The same of uint8 [H, W, 3], rows first and columns first; in between they are bytes again."""
    height, width = shaping.stored
    rows, columns = pixels.shape[:2]
    top = left = 0.0
    if shaping.crop != "none":
        scale = min(columns / width, rows / height)
        top, left = (rows - height * scale) / 2, (columns - width * scale) / 2
    across = weights(columns, left, columns - left, width, shaping.resize)
    down = weights(rows, top, rows - top, height, shaping.resize)
    passes = (lambda x: np.einsum("wk,rkc->rwc", across, x), lambda x: np.einsum("hr,rwc->hwc", down, x))
    found = []
    for first, second in (passes, passes[::-1]):
        between = np.floor(first(pixels.astype(float)) + 0.5).clip(0, 255)
        found.append(np.floor(second(between) + 0.5).clip(0, 255))
    return found


def zone_plate(height: int, width: int) -> np.ndarray:
    """Rings that become ever finer: every frequency, in every direction."""
    y, x = np.mgrid[:height, :width]
    rings = (1 + np.sin((x**2 + y**2) / max(height, width) * np.pi / 2)) * 127.5
    return np.stack([rings, 255 - rings, np.roll(rings, 3, 1)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("crop", ["center", "none", "random"])
@pytest.mark.parametrize("resize", ["lanczos", "bicubic", "box", "nearest"])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((97, 133), (16, 16)),
        ((131, 97), (33, 20)),
        ((63, 63), (16, 16)),
        ((300, 41), (7, 21)),
        ((9, 7), (32, 32)),
    ],
)
def test_every_filter(shape: tuple[int, int], size: tuple[int, int], resize: str, crop: str):
    pixels = zone_plate(*shape)
    shaping = Shaping(size, resize=resize, crop=crop)
    found = np.asarray(fit(Image.fromarray(pixels), shaping))
    assert found.shape == (*shaping.stored, 3)
    differences = [np.abs(found - each) for each in expected(pixels, shaping)]
    assert min(np.nanmax(difference) for difference in differences) <= 1
    if resize != "box":  # whose sums are often halves
        assert min(np.nanmean(difference) for difference in differences) <= 0.02


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (40, 40), (3, 6), (60, 29), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("size", [(8, 8), (4, 12), (7, 3), (7, 7)])
@pytest.mark.parametrize("crop", ["center", "none"])
def test_every_shape_fits(shape: tuple[int, int], size: tuple[int, int], crop: str):
    found = fit(Image.new("RGB", shape[::-1], "red"), Shaping(size, crop=crop))
    assert found.size == size[::-1]
    assert np.asarray(found)[..., 0].min() == 255


def test_without_a_size_nothing_is_done():
    image = Image.new("L", (5, 7))
    assert fit(image, Shaping(resize="box", crop="none")) is image
    assert fit(image, Shaping((7, 5))) is image


def test_the_middle_is_kept():
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 255
    for image in (pixels, pixels.T):
        found = np.asarray(fit(Image.fromarray(image), Shaping((10, 10))))
        assert found.min() > 235  # filters see the image beyond the cut
    whole = np.asarray(fit(Image.fromarray(pixels), Shaping((10, 30))))
    assert whole[:, 0].max() == 0
    squeezed = np.asarray(fit(Image.fromarray(pixels), Shaping((10, 10), crop="none")))
    assert squeezed[:, [0, 5, 9]].tolist() == [[0, 255, 0]] * 10


def test_all_but_nearest_are_antialiased():
    checks = Image.fromarray((np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8))
    for resize in ("lanczos", "bicubic", "box"):
        found = np.asarray(fit(checks, Shaping((8, 8), resize=resize))).astype(int)
        assert np.abs(found - 127.5).max() < 4
    nearest = np.asarray(fit(checks, Shaping((8, 8), resize="nearest")))
    assert set(np.unique(nearest)) <= {0, 255}


def test_pixel_art_keeps_its_colours():
    art = np.random.default_rng(0).integers(0, 4, (16, 16)).astype(np.uint8) * 80
    large = art.repeat(3, 0).repeat(3, 1)
    shaping = Shaping((16, 16), resize="nearest")
    np.testing.assert_array_equal(np.asarray(fit(Image.fromarray(large), shaping)), art)
    back = Shaping((48, 48), resize="nearest")
    np.testing.assert_array_equal(np.asarray(fit(Image.fromarray(art), back)), large)
