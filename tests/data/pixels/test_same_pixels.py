"""The same picture as PNG, JPEG, WebP and TIFF becomes the same array."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from ddpm.data.pixels.decoding import decode
from ddpm.data.pixels.shaping import Shaping

SIDES = np.geomspace(33, 3000, 40).round().astype(int).tolist()
PATTERNS = ("stripes", "zone plate", "noise", "china", "flower")
WANTED = (16, 32, 64, 256)


def picture(pattern: str, height: int, width: int) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    if pattern == "stripes":
        period = max(2, min(height, width) // 40)
        pixels = np.stack([x // period % 2, y // period % 2, (x + y) // period % 2], axis=-1) * 255
    elif pattern == "zone plate":
        rings = (1 + np.sin((x**2 + y**2) / max(height, width) * np.pi / 2)) * 127.5
        pixels = np.stack([rings, 255 - rings, rings[::-1]], axis=-1)
    elif pattern == "noise":
        pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3))
    else:
        photograph = load_sample_images().images[PATTERNS.index(pattern) - 3]
        return Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray(pixels.astype(np.uint8))


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def differences(image: Image.Image, size: int, **options: object) -> list[np.ndarray]:
    """Of a JPEG from lossless files of what it holds."""
    jpeg = saved(image, "JPEG", **options)
    held = Image.open(io.BytesIO(jpeg))
    shaping = Shaping((size, size))
    found = decode(jpeg, shaping).pixels.astype(int)
    lossless = [
        saved(held, "PNG", compress_level=1),
        saved(held, "TIFF"),
        saved(held, "WEBP", lossless=True, quality=0, method=0),
        saved(held, "BMP"),
    ]
    return [np.abs(found - decode(file, shaping).pixels) for file in lossless]


def agree(side: int, pattern: str) -> None:
    # Every second one wide, every second one tall, of sides that no power of two divides.
    shape = (side, side * 4 // 3 + 1) if side % 2 else (side * 4 // 3 + 1, side)
    # Pillow's buffer is too small for noise that is written in scans.
    scans = side % 5 == 0 and pattern != "noise"
    options = {"quality": (75, 95)[side % 2], "subsampling": side % 3, "progressive": scans}
    image = picture(pattern, *shape)
    for size in WANTED:
        for difference in differences(image, size, **options):
            assert difference.max() == 0


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("side", [33, 307])
def test_the_format_does_not_matter(side: int, pattern: str):
    agree(side, pattern)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("side", SIDES)
def test_the_format_does_not_matter_at_any_size(side: int, pattern: str):
    agree(side, pattern)


def test_grey_and_cmyk_jpegs_too():
    grey = picture("zone plate", 500, 400).convert("L")
    for difference in differences(grey, 32, quality=90):
        assert difference.max() == 0
    jpeg = saved(picture("china", 500, 400).convert("CMYK"), "JPEG", quality=90)
    held = Image.open(io.BytesIO(jpeg))
    shaping = Shaping((32, 32))
    np.testing.assert_array_equal(decode(jpeg, shaping).pixels, decode(saved(held, "TIFF"), shaping).pixels)
