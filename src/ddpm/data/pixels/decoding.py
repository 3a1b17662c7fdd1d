"""From encoded images, whatever their format, and from arrays, to bytes of one shape."""

import io
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ddpm.data import git_lfs
from ddpm.data.pixels.channels_of_tiff import channels_of, is_tiff
from ddpm.data.pixels.full_depth import bits_of, full_numbers
from ddpm.data.pixels.levels import Limits, Numbers, levels
from ddpm.data.pixels.resizing import fit
from ddpm.data.pixels.shaping import MOST_CHANNELS, Shaping
from ddpm.data.quiet import quietly
from ddpm.runtime.cores import available_cores

# Pillow would also try formats that start other programs (EPS) or that match almost any bytes (TGA).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "PPM", "AVIF")
AS_IT_IS = Shaping()
EMPTY = "it is empty"
NO_IMAGE = "not an image, or of a format that is not read here"
CHUNK = 16
THREADS = min(16, available_cores() + 4)

RANGES = {"uint8": (0.0, 255.0), "bool": (0.0, 1.0), "uint16": (0.0, 65535.0)}
"""Black and white in arrays of those types that leave little doubt."""

SPARSE = 255 // 10
"""An image whose levels span fewer is looked at exactly: filters narrow what it holds."""

Encoded = Path | bytes
"""An image as it was saved: a file, or its contents."""


class Decoded(NamedTuple):
    """An image that could be read.

    Attributes:
        pixels: uint8 [C, H, W].
        mode: how its pixels were kept, in Pillow's words; or an array's type of numbers.
        size: (height, width) that it had.
        values: the lowest and the highest number that it held; of bytes where they span a tenth of the range
            or more, those that are left after resizing.
        limits: the ends of its range, the lower one first: black and white, or white and black.
    """

    pixels: np.ndarray
    mode: str
    size: tuple[int, int]
    values: Limits = (0.0, 255.0)
    limits: Limits = (0.0, 255.0)


def decode(source: Encoded, shaping: Shaping = AS_IT_IS) -> Decoded:
    """One image, upright by its EXIF orientation; docs/pixels.md says how each kind is read.

    Transparent parts turn white. Numbers of more or fewer bits than a byte are scaled by what their file says
    of them. Of an animation, the first image. Colour profiles and gamma are not followed.

    Args:
        source: a file, or its contents.
        shaping: what is asked of it.

    Raises:
        Exception: almost any, where the source is no image, is cut short, would unpack to more than Pillow's
            limit of pixels, or holds numbers whose range is not known: every format has its own decoder.
    """
    if shaping.planes is not None and is_tiff(_beginning(source)):
        with quietly():
            return from_array(channels_of(source, shaping.planes), shaping)
    with quietly(), _open(source) as opened:
        if shaping.planes is not None:
            return from_array(_bands(opened, shaping.planes), shaping)
        mode, size = opened.mode, (opened.height, opened.width)
        numbers = full_numbers(opened, lambda: _open(source))
        if numbers is None:
            bits = bits_of(opened)
            ImageOps.exif_transpose(opened, in_place=True)
            image = _plain(opened, bits)
            if shaping.value_range is None:
                return _of_bytes(_opaque(image), mode, size, shaping)
            numbers = _numbers_of_bytes(image, bits)
    return _of_numbers(numbers, mode, size, shaping)


def from_array(array: np.ndarray, shaping: Shaping = AS_IT_IS) -> Decoded:
    """An image that is kept as an array of numbers.

    Bytes, booleans and uint16 are black and white at the ends of their type, others by `value_range`; so is
    the opacity.

    Args:
        array: [H, W, C], of any type of numbers. The fourth of four channels is opacity, unless
            `shaping.channels` is 4.
        shaping: what is asked of it.

    Raises:
        ValueError: where it has another shape or holds no numbers, their range is not known, or one lies
            beyond it.
    """
    if array.ndim != 3 or not array.size:
        shape = "x".join(map(str, array.shape))
        raise ValueError(f"an array of {shape}, which is not height x width x channels")
    if array.dtype.kind not in "buif":
        raise ValueError(f"values of type {array.dtype} are no levels of brightness")
    limits = RANGES.get(array.dtype.name)
    opacity = None
    if shaping.planes is not None or array.shape[2] not in (1, 3, 4):
        check_planes(array.shape[2], shaping)
        return _of_planes(Numbers(array, limits), array.dtype.name, shaping)
    if array.shape[2] == 4:
        clear, opaque = limits or shaping.value_range or (0.0, 1.0)
        opacity = np.clip((array[..., 3] - clear) / (opaque - clear), 0, 1)
    numbers = Numbers(array[..., :3], limits, opacity=opacity)
    return _of_numbers(numbers, array.dtype.name, array.shape[:2], shaping)


def decode_or_reason(source: Encoded, shaping: Shaping = AS_IT_IS) -> Decoded | str:
    """What `decode` gives, or the reason why it gives nothing, in words that are the same every time."""
    try:
        return decode(source, shaping)
    except UnidentifiedImageError:
        # Pillow's own message repeats the path, or the address of a buffer.
        beginning = _beginning(source)
        return git_lfs.NOT_FETCHED if beginning == git_lfs.POINTER else NO_IMAGE if beginning else EMPTY
    except Exception as error:
        return short(error)


def _beginning(source: Encoded) -> bytes:
    """As many bytes as tell a pointer of Git LFS."""
    if isinstance(source, bytes):
        return source[: len(git_lfs.POINTER)]
    with source.open("rb") as file:
        return file.read(len(git_lfs.POINTER))


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


def _open(source: Encoded) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def _bands(opened: ImageFile.ImageFile, channels: int) -> np.ndarray:
    """The bands of an image as they are, uint8 [H, W, C]: grey and opacity, colour and opacity, CMYK."""
    if opened.mode not in ("LA", "RGBA", "CMYK") or len(opened.getbands()) != channels:
        raise ValueError(
            f"it has {len(opened.getbands())} channels of the kind {opened.mode}, and "
            f"data.channels={channels} is asked for"
        )
    return np.asarray(ImageOps.exif_transpose(opened))


def _plain(opened: Image.Image, bits: int) -> Image.Image:
    """The image in mode L, LA, RGB or RGBA."""
    if opened.mode[0] in "IF":  # Pillow would cut what is above 255
        raise ValueError(f"pixels of the kind {opened.mode} in {opened.format} are not read here")
    if opened.mode == "L" and bits < 8 and isinstance(opened.info.get("transparency"), int):
        opened.info["transparency"] *= 255 // (2**bits - 1)  # which Pillow leaves in the file's numbers
    if opened.mode == "La":
        opened = opened.convert("LA")
    wanted = "L" if opened.mode in ("1", "L", "LA") else "RGB"
    if opened.has_transparency_data:
        wanted += "A"
    return opened if opened.mode == wanted else opened.convert(wanted)  # which copies all the same


def _opaque(image: Image.Image) -> Image.Image:
    """An image in mode L or RGB: what is not opaque is laid over white."""
    if image.mode not in ("LA", "RGBA"):
        return image
    rgba = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return flat.convert("RGB").convert(image.mode[:-1])


def _numbers_of_bytes(image: Image.Image, bits: int) -> Numbers:
    """The numbers of an image of at most 8 bits a channel, as they were in its file."""
    values = np.asarray(image).reshape(image.height, image.width, -1)
    opacity = None
    if image.mode in ("LA", "RGBA"):
        values, opacity = values[..., :-1], values[..., -1] / np.float32(255)
    return Numbers(values // (255 // (2**bits - 1)), (0, 2**bits - 1), opacity=opacity)


def _of_numbers(numbers: Numbers, mode: str, size: tuple[int, int], shaping: Shaping) -> Decoded:
    pixels, values, limits = levels(numbers, shaping.value_range)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return Decoded(_planes(fit(image, shaping), shaping), mode, size, values, limits)


def check_planes(channels: int, shaping: Shaping) -> None:
    """Refuse, with ValueError, images of other channels than are asked for, and more than can be."""
    if channels > MOST_CHANNELS:
        raise ValueError(f"it has {channels} channels; at most {MOST_CHANNELS} are read")
    if shaping.channels not in (None, channels):
        raise ValueError(
            f"it has {channels} channel{'s' if channels > 1 else ''}, and data.channels={shaping.channels} "
            f"is asked for; give data.channels={channels}"
        )


def _of_planes(numbers: Numbers, mode: str, shaping: Shaping) -> Decoded:
    """An image whose channels are neither grey, colours nor opacity: each is resized by itself."""
    pixels, values, limits = levels(numbers, shaping.value_range)
    fitted = [
        np.asarray(fit(Image.fromarray(np.ascontiguousarray(plane)), shaping))
        for plane in np.moveaxis(pixels, 2, 0)
    ]
    return Decoded(np.stack(fitted), mode, pixels.shape[:2], values, limits)


def _of_bytes(image: Image.Image, mode: str, size: tuple[int, int], shaping: Shaping) -> Decoded:
    pixels = _planes(fit(image, shaping), shaping)
    lowest, highest = int(pixels.min()), int(pixels.max())
    if highest - lowest < SPARSE:
        bands = np.array(image.getextrema())
        lowest, highest = int(bands.min()), int(bands.max())
    return Decoded(pixels, mode, size, (lowest, highest))


def _planes(image: Image.Image, shaping: Shaping) -> np.ndarray:
    """uint8 [C, H, W] of an image in mode L or RGB."""
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
