"""Cropped and resized: how an image of any size becomes one of the wanted size."""

from PIL import Image

from ddpm.data.pixels.shaping import Shaping

FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}


def fit(image: Image.Image, shaping: Shaping) -> Image.Image:
    """An image, or half of it, at the size that is stored, `shaping.stored`.

    The largest centred part of the wanted aspect, or all of it where `shaping.crop` is none. Filters are as
    wide as one pixel of the result is in the image (antialiased), and see the image beyond the cut; `nearest`
    takes the one pixel at the middle.

    Args:
        image: in mode L or RGB.
        shaping: what is asked of it.
    """
    if shaping.side is not None:
        half = image.width // 2
        first = 0 if shaping.side == "left" else image.width - half
        image = image.crop((first, 0, first + half, image.height))
    if shaping.stored is None:
        return image
    height, width = shaping.stored
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    # Rounding must not carry the box over the edge, which Pillow refuses.
    left = max(0.0, (image.width - width * scale) / 2)
    top = max(0.0, (image.height - height * scale) / 2)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), FILTERS[shaping.resize], None if shaping.crop == "none" else box)
