"""From encoded pictures, whatever their format, to one array of bytes of one shape."""

import io
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

logger = logging.getLogger(__name__)

# Pillow would also try formats that start other programs (EPS) or that match almost any bytes (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
CHUNK = 16
THREADS = min(16, (os.cpu_count() or 1) + 4)
NAMED = 20
SECONDS_BETWEEN_LINES = 10.0

Source = Path | bytes


class Decoded(NamedTuple):
    """Pictures of one shape, and what became of those that could not be read.

    Attributes:
        images: uint8 [N, C, H, W].
        kept: int64 [N], the place of each among the sources.
        skipped: name and reason of each source that is no picture.
    """

    images: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]


def parse_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) in pixels from one number, for a square, or from two.

    Raises:
        ValueError: where it is neither, or a number is below 1.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if (
        isinstance(size, str)
        or not isinstance(size, Sequence)
        or len(size) != 2
        or not all(type(side) is int and side >= 1 for side in size)
    ):
        raise ValueError(
            f"data.image_size={image_size} must be a whole number of pixels, at least 1, or [height, width]"
        )
    return size[0], size[1]


def check_channels(channels: int | None) -> None:
    """Refuse, with ValueError, what is neither 1, 3 nor None."""
    if channels is not None and (type(channels) is not int or channels not in (1, 3)):
        raise ValueError(
            f"data.channels={channels} must be 1 (grey), 3 (colour) or "
            "null (1 if every picture is grey, else 3)"
        )


def decode(source: Source, size: tuple[int, int] | None = None, channels: int | None = None) -> np.ndarray:
    """One picture as uint8 [C, H, W], upright by its EXIF orientation.

    Transparent parts turn white. 16 bits turn to 8; a mode of 32-bit integers is taken to hold 16 bits, as it
    does in 16-bit PGM. Of an animation, the first picture.

    Args:
        source: a file, or its contents.
        size: (height, width); the largest centred part of that aspect is resized to it, antialiased. None
            leaves the picture as large as it is.
        channels: 1 or 3; None gives 1 where red, green and blue are equal everywhere, else 3.

    Raises:
        Exception: almost any, where the source is no picture, is cut short, or would unpack to more than
            Pillow's limit of pixels: every format has its own decoder.
    """
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
        if size is not None:
            # JPEG decodes much faster at a fraction of its size; at three times the target or more, pixels
            # differ by two or three levels of 255 at most.
            image.draft(None, (3 * max(size), 3 * max(size)))
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        picture = _grey_or_colour(image)
    if size is not None:
        picture = _fit(picture, size)
    if channels is not None:
        picture = picture.convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture)
    if pixels.ndim == 2:
        return pixels[None]
    planes = pixels.transpose(2, 0, 1)
    is_grey = (
        channels is None and np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])
    )
    return planes[:1] if is_grey else planes


def decode_all(
    sources: Iterable[tuple[str, Source]],
    count: int,
    *,
    size: tuple[int, int] | None,
    channels: int | None,
) -> Decoded:
    """Decode many pictures into one array, in their order; a warning names those that cannot be read.

    Args:
        sources: name and source of each picture.
        count: how many there are.
        size: (height, width); None where all have the same size already.
        channels: 1 or 3; None gives 1 if every picture is grey, else 3.

    Returns:
        The pictures; images is [0, C, 1, 1] or [0, C, H, W] where none could be read.

    Raises:
        ValueError: where size is None and the pictures differ in size.
    """
    started = told = time.monotonic()
    images = np.empty((count, channels or 1, *(size or (1, 1))), np.uint8)
    kept: list[int] = []
    skipped: list[tuple[str, str]] = []
    for index, (name, picture) in enumerate(_decoded(sources, size, channels)):
        if isinstance(picture, str):
            skipped.append((name, picture))
            if len(skipped) <= NAMED:
                logger.warning("skipped %s: %s", _printable(name), picture)
        else:
            if not kept and size is None:
                images = np.empty((count, *picture.shape), np.uint8)
            if picture.shape[1:] != images.shape[2:]:
                (h, w), (height, width) = images.shape[2:], picture.shape[1:]
                raise ValueError(
                    f"data.image_size is not set, and the pictures differ in size: {_printable(name)} is "
                    f"{height}x{width}, those before it {h}x{w}; set it, as in data.image_size={min(h, w)}"
                )
            if len(picture) > images.shape[1]:
                images = _in_colour(images, len(kept))
            images[len(kept)] = picture
            kept.append(index)
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES:
            told = now
            left = (now - started) / (index + 1) * (count - index - 1)
            logger.info("read %s of %s pictures, %.0f s left", f"{index + 1:,}", f"{count:,}", left)
    if skipped:
        unnamed = f", {len(skipped) - NAMED:,} of them not named here" if len(skipped) > NAMED else ""
        logger.warning("skipped %s of %s files%s", f"{len(skipped):,}", f"{count:,}", unnamed)
    logger.info("read %s pictures in %.1f s", f"{len(kept):,}", time.monotonic() - started)
    return Decoded(images[: len(kept)], np.array(kept, np.int64), skipped)


def _decoded(
    sources: Iterable[tuple[str, Source]], size: tuple[int, int] | None, channels: int | None
) -> Iterator[tuple[str, np.ndarray | str]]:
    """Name of each source with its pixels, or with the reason why there are none, in order."""

    def decode_chunk(chunk: list[tuple[str, Source]]) -> list[tuple[str, np.ndarray | str]]:
        return [(name, _pixels_or_reason(source, size, channels)) for name, source in chunk]

    remaining = iter(sources)
    pending: deque[Future[list[tuple[str, np.ndarray | str]]]] = deque()
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


def _pixels_or_reason(source: Source, size: tuple[int, int] | None, channels: int | None) -> np.ndarray | str:
    try:
        return decode(source, size, channels)
    except UnidentifiedImageError:
        # Pillow's own message repeats the path, or the address of a buffer.
        empty = (source.stat().st_size if isinstance(source, Path) else len(source)) == 0
        return "it is empty" if empty else "not a picture, or of a format that is not read here"
    except Exception as error:
        return str(error) or type(error).__name__


def _grey_or_colour(image: Image.Image) -> Image.Image:
    """The picture in mode L or RGB."""
    if image.mode == "I" or image.mode.startswith("I;"):
        levels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return image.convert("L" if image.mode == "L" else "RGB")


def _fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The largest centred part of the aspect of size = (height, width), resized to it."""
    height, width = size
    if picture.size == (width, height):
        return picture
    scale = min(picture.width / width, picture.height / height)
    # Rounding must not carry the box over the edge, which Pillow refuses.
    left = max(0.0, (picture.width - width * scale) / 2)
    top = max(0.0, (picture.height - height * scale) / 2)
    box = (left, top, picture.width - left, picture.height - top)
    return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _in_colour(grey: np.ndarray, filled: int) -> np.ndarray:
    """[N, 1, H, W] as [N, 3, H, W]; only the first `filled` hold anything."""
    count, _, height, width = grey.shape
    colour = np.empty((count, 3, height, width), np.uint8)
    colour[:filled] = grey[:filled]
    return colour


def _printable(name: str) -> str:
    """File names need not be text in any encoding, and a terminal refuses the rest."""
    return name.encode("utf-8", "backslashreplace").decode()
