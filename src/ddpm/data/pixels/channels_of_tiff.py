"""TIFF files of any number of channels, which Pillow refuses or cuts to red, green and blue."""

import io
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import TiffImagePlugin

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIPS, SAMPLES, ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SAMPLE_FORMAT = 322, 323, 324, 325, 339
"""Tags of TIFF 6.0."""

NONE, DEFLATE = 1, (8, 32946)
"""Compressions that are read here."""

KINDS = {1: "u", 2: "i", 3: "f"}
"""What the tag SampleFormat says."""

READ = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")
"""Types of numbers, in numpy's words."""

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_NUMBERS = 1 << 28
"""In a file; more would take gigabytes."""


def is_tiff(beginning: bytes) -> bool:
    """Whether a file that begins so is a TIFF."""
    return beginning[:4] in BEGINNINGS


def channels_of(source: Path | bytes, channels: int) -> np.ndarray:
    """The channels of a TIFF file, [H, W, channels], in its own type of numbers.

    They are the samples of each pixel, or pages of one sample each. Strips and tiles are read, in either
    order of planes, uncompressed or by Deflate; what is compressed otherwise is read by tifffile, where that
    is installed. Orientation is not followed.

    Args:
        source: a file, or its contents.
        channels: that there must be.

    Raises:
        ValueError: where there are others, the file is cut short, or it is written in a way that is not read.
    """
    opened: Any = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with opened if not isinstance(source, bytes) else nullcontext(opened) as file:
        pages = _pages(file, channels)
        counts = [int(page.get(SAMPLES, 1)) for page in pages]
        if counts[0] == channels:
            pages = pages[:1]
        elif counts != [1] * channels:
            there = f"{len(counts)} pages of {counts[0]}" if len(counts) > 1 else str(counts[0])
            raise ValueError(f"it has {there} channels, and data.channels={channels} is asked for")
        if any(int(page.get(COMPRESSION, NONE)) not in (NONE, *DEFLATE) for page in pages):
            return _by_tifffile(source, channels)
        return np.concatenate([_page(file, page) for page in pages], axis=2)


def _pages(file: BinaryIO, channels: int) -> list[Any]:
    """The directories of a file, as many as its channels may be, and one more."""
    header = file.read(8)
    if header[2] == 43:
        header += file.read(8)
    directory: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
    found: list[Any] = []
    position = directory.next
    while position and len(found) <= channels:
        file.seek(position)
        page: Any = TiffImagePlugin.ImageFileDirectory_v2(header)
        page.load(file)
        if WIDTH not in page or HEIGHT not in page:
            raise ValueError("image file is truncated")
        found.append(page)
        position = page.next
    if not found:
        raise ValueError("a TIFF without an image")
    return found


def _page(file: BinaryIO, page: Any) -> np.ndarray:
    """The samples of a page, [H, W, C]."""
    width, height, count = int(page[WIDTH]), int(page[HEIGHT]), int(page.get(SAMPLES, 1))
    if not 0 < width * height * count <= MOST_NUMBERS:
        raise ValueError(f"{width}x{height} pixels of {count} channels are too many")
    kind = _kind(page)
    separate = int(page.get(PLANAR, 1)) == 2
    tiled = TILES in page
    inner = (
        (int(page[TILE_HEIGHT]), int(page[TILE_WIDTH]))
        if tiled
        else (min(height, int(page.get(ROWS, height))), width)
    )
    offsets, sizes = (
        _several(page[tag]) for tag in ((TILES, TILE_BYTES) if tiled else (STRIPS, STRIP_BYTES))
    )
    planes = count if separate else 1
    across, down = -(-width // inner[1]), -(-height // inner[0])
    if min(inner) < 1 or len(offsets) != planes * across * down or len(sizes) != len(offsets):
        raise ValueError("its strips do not cover it")
    image = np.empty((height, width, count), kind.newbyteorder("="))
    for number, (offset, size) in enumerate(zip(offsets, sizes, strict=True)):
        plane, at = divmod(number, across * down)
        top, left = at // across * inner[0], at % across * inner[1]
        rows = inner[0] if tiled else min(inner[0], height - top)
        shape = (rows, inner[1], 1 if separate else count)
        file.seek(offset)
        block = _block(file.read(size), page, kind, shape)
        part = np.s_[plane : plane + 1] if separate else np.s_[:]
        image[top : top + rows, left : left + inner[1], part] = block[: height - top, : width - left]
    return image


def _block(contents: bytes, page: Any, kind: np.dtype[Any], shape: tuple[int, int, int]) -> np.ndarray:
    """A strip or tile."""
    needed = shape[0] * shape[1] * shape[2] * kind.itemsize
    if int(page.get(COMPRESSION, NONE)) != NONE:
        contents = zlib.decompressobj().decompress(contents, needed)
    if len(contents) < needed:
        raise ValueError("image file is truncated")
    block = np.frombuffer(contents[:needed], kind).reshape(shape)
    predictor = int(page.get(PREDICTOR, 1))
    if predictor == 2 and kind.kind != "f":  # each number is the difference to the one on its left
        native = kind.newbyteorder("=")
        return np.cumsum(block.astype(native), axis=1, dtype=native)
    if predictor != 1:
        raise ValueError(f"a TIFF with predictor {predictor} is not read here; save it without")
    return block


def _kind(page: Any) -> np.dtype[Any]:
    """Of its numbers."""
    bits, kinds = set(_several(page.get(BITS, 1))), set(_several(page.get(SAMPLE_FORMAT, 1)))
    order = "<" if page.prefix == b"II" else ">"
    if len(bits) == len(kinds) == 1:
        name = f"{KINDS.get(kinds.pop(), '?')}{bits.pop() // 8}"
        if name in READ:
            return np.dtype(order + name)
    raise ValueError("its channels differ in their type of numbers, or are not of 8, 16, 32 or 64 bits")


def _by_tifffile(source: Path | bytes, channels: int) -> np.ndarray:
    try:
        import tifffile  # type: ignore[import-not-found, unused-ignore]  # no extra of ours installs it
    except ImportError:
        raise ValueError(
            "it is compressed, by other than Deflate; pip install tifffile imagecodecs reads it, or save it "
            "uncompressed"
        ) from None
    read: Callable[[Any], np.ndarray] = tifffile.imread
    image = np.atleast_3d(read(io.BytesIO(source) if isinstance(source, bytes) else source))
    if image.shape[2] != channels and image.shape[0] == channels:
        image = np.moveaxis(image, 0, 2)
    return image


def _several(value: Any) -> tuple[int, ...]:
    return tuple(int(one) for one in value) if isinstance(value, tuple) else (int(value),)
