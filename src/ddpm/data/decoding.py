"""From encoded images, whatever their format, to bytes of one shape."""

import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpm.data.shaping import Shaping
from ddpm.runtime.cores import available_cores

# Pillow would also try formats that start other programs (EPS) or that match almost any bytes (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
AS_IT_IS = Shaping()
CHUNK = 16
THREADS = min(16, available_cores() + 4)

Encoded = Path | bytes
"""An image as it was saved: a file, or its contents."""


class Decoded(NamedTuple):
    """An image that could be read.

    Attributes:
        pixels: uint8 [C, H, W].
        mode: how its pixels were kept, in Pillow's words.
        size: (height, width) that it had.
        values: the lowest and the highest number that it held.
        limits: the numbers that became black and white.
    """

    pixels: np.ndarray
    mode: str
    size: tuple[int, int]
    values: tuple[float, float] = (0.0, 255.0)
    limits: tuple[float, float] = (0.0, 255.0)


def decode(source: Encoded, shaping: Shaping = AS_IT_IS) -> Decoded:
    """One image, upright by its EXIF orientation.

    Transparent parts turn white. 16 bits turn to 8; a mode of 32-bit integers is taken to hold 16 bits, as it
    does in 16-bit PGM. Of an animation, the first image.

    Args:
        source: a file, or its contents.
        shaping: what is asked of it.

    Raises:
        Exception: almost any, where the source is no image, is cut short, or would unpack to more than
            Pillow's limit of pixels: every format has its own decoder.
    """
    size, channels = shaping.stored, shaping.channels
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as opened:
        mode, original = opened.mode, (opened.height, opened.width)
        if size is not None:
            # JPEG decodes much faster at a fraction of its size; at three times the target or more, pixels
            # differ by two or three levels of 255 at most.
            opened.draft(None, (3 * max(size), 3 * max(size)))
        ImageOps.exif_transpose(opened, in_place=True)
        opened.load()
        image = _grey_or_colour(opened)
    if size is not None:
        image = _fit(image, size)
    if channels is not None:
        image = image.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return Decoded(pixels[None], mode, original)
    planes = pixels.transpose(2, 0, 1)
    is_grey = (
        channels is None and np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])
    )
    return Decoded(planes[:1] if is_grey else planes, mode, original)


def from_array(array: np.ndarray, shaping: Shaping = AS_IT_IS) -> Decoded:
    """An image that is kept as an array of numbers.

    Args:
        array: [H, W, C] of 1, 3 or 4 channels, the fourth of them opacity; of any type of numbers.
        shaping: what is asked of it.

    Raises:
        ValueError: where the range of the numbers is not known, or a number lies outside of it.
    """
    if array.dtype != np.uint8:
        raise ValueError(
            f"numbers of type {array.dtype}, whose range is not known; say it by data.value_range"
        )
    image = _grey_or_colour(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array))
    if shaping.stored is not None:
        image = _fit(image, shaping.stored)
    pixels = np.asarray(image).reshape(image.height, image.width, -1).transpose(2, 0, 1)
    return Decoded(pixels, image.mode, array.shape[:2], (float(array.min()), float(array.max())))


def decode_or_reason(source: Encoded, shaping: Shaping = AS_IT_IS) -> Decoded | str:
    """What `decode` gives, or the reason why it gives nothing, in words that are the same every time."""
    try:
        return decode(source, shaping)
    except UnidentifiedImageError:
        # Pillow's own message repeats the path, or the address of a buffer.
        empty = (source.stat().st_size if isinstance(source, Path) else len(source)) == 0
        return "it is empty" if empty else "not an image, or of a format that is not read here"
    except Exception as error:
        return short(error)


def decode_all(sources: Iterable[Encoded | str], shaping: Shaping = AS_IT_IS) -> Iterator[Decoded | str]:
    """Decode many images, on all cores: what `decode_or_reason` gives for each, in order.

    A source may also be a reason already, as a string, why there is no image.
    """

    def decode_chunk(chunk: list[Encoded | str]) -> list[Decoded | str]:
        return [one if isinstance(one, str) else decode_or_reason(one, shaping) for one in chunk]

    remaining = iter(sources)
    pending: deque[Future[list[Decoded | str]]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        # The queue is bounded: of a large set only a small part may be decoded ahead.
        while (chunk := list(itertools.islice(remaining, CHUNK))) or pending:
            if chunk:
                pending.append(pool.submit(decode_chunk, chunk))
            if len(pending) > 2 * THREADS or not chunk:
                yield from pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def short(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _grey_or_colour(opened: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if opened.mode == "I" or opened.mode.startswith("I;"):
        levels = np.clip(np.asarray(opened), 0, 65535).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if opened.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if opened.has_transparency_data:
        image = opened.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return opened.convert("L" if opened.mode == "L" else "RGB")


def _fit(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of the aspect of size = (height, width), resized to it."""
    height, width = size
    if image.size == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    # Rounding must not carry the box over the edge, which Pillow refuses.
    left = max(0.0, (image.width - width * scale) / 2)
    top = max(0.0, (image.height - height * scale) / 2)
    box = (left, top, image.width - left, image.height - top)
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
