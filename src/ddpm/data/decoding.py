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

from ddpm.data.levels import Numbers, levels
from ddpm.data.resizing import fit
from ddpm.data.shaping import Shaping
from ddpm.runtime.cores import available_cores

# Pillow would also try formats that start other programs (EPS) or that match almost any bytes (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
AS_IT_IS = Shaping()
RANGES = {"uint8": (0.0, 255.0), "bool": (0.0, 1.0), "uint16": (0.0, 65535.0)}
"""Black and white of the types of arrays that leave no doubt: the others are as often not filled."""

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
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as opened:
        mode, original = opened.mode, (opened.height, opened.width)
        ImageOps.exif_transpose(opened, in_place=True)
        opened.load()
        image = _grey_or_colour(opened)
    return Decoded(_shaped(image, shaping), mode, original)


def from_array(array: np.ndarray, shaping: Shaping = AS_IT_IS) -> Decoded:
    """An image that is kept as an array of numbers.

    Args:
        array: [H, W, C] of 1, 3 or 4 channels, the fourth of them opacity; of any type of numbers.
        shaping: what is asked of it.

    Raises:
        ValueError: where it has another shape, the range of its numbers is not known, or a number lies
            outside of it.
    """
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(f"an array {list(array.shape)} is no image [height, width, 1, 3 or 4 channels]")
    limits = RANGES.get(array.dtype.name)
    colours, opacity = array[..., :3], None
    if array.shape[2] == 4:
        own = limits or shaping.value_range or (0.0, 1.0)
        opacity = (array[..., 3].astype(np.float32) - own[0]) / (own[1] - own[0])
    pixels, values, known = levels(Numbers(colours, limits, opacity=opacity), shaping.value_range)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return Decoded(_shaped(image, shaping), str(array.dtype), array.shape[:2], values, known)


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


def _shaped(image: Image.Image, shaping: Shaping) -> np.ndarray:
    """Levels uint8 [C, H, W] of an image in mode L or RGB."""
    image = fit(image, shaping)
    if shaping.channels is not None:
        image = image.convert("L" if shaping.channels == 1 else "RGB")
    pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels[None]
    planes = pixels.transpose(2, 0, 1)
    is_grey = (
        shaping.channels is None
        and np.array_equal(planes[0], planes[1])
        and np.array_equal(planes[0], planes[2])
    )
    return planes[:1] if is_grey else planes
