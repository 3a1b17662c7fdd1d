"""The numbers of files that hold more than a byte a channel, as they are there: Pillow cuts many down."""

import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from PIL import ImageFile, ImageOps, TiffImagePlugin

from ddpm.data.pixels.levels import OF_TYPE, Limits, Numbers

PHOTOMETRIC, BITS, SAMPLE_FORMAT, PLANES, EXTRA = 262, 258, 339, 284, 338
MINIMUM, MAXIMUM = (340, 280), (341, 281)
"""Tags of TIFF. The second one of each pair knows no signs and no fractions."""

WHITE_IS_ZERO, UNSIGNED, IN_PLANES, MULTIPLIED = 0, 1, 2, 1
"""What tags say: in the order of the tags above."""

NATIVE = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
"""Orders of bytes, in Pillow's words."""

SIZE_OF_CODESTREAM = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 codestream begins: the markers SOC and SIZ."""

NOT_READ = "its channels lie in the file in a way that is not read here"

Opened = ImageFile.ImageFile


def full_numbers(opened: Opened, again: Callable[[], Opened]) -> Numbers | None:
    """What an image holds, upright by its EXIF orientation; None where Pillow's bytes are all that there is.

    Args:
        opened: an image that is not loaded yet.
        again: opens it once more.

    Raises:
        Exception: as loading it by Pillow does.
    """
    if not opened.tile:
        return None
    if opened.format == "PNG":
        return _png(opened, again)
    if isinstance(opened, TiffImagePlugin.TiffImageFile):
        return _tiff(opened, again)
    if opened.format == "PPM":
        return _pnm(opened)
    if opened.format == "JPEG2000":
        return _jpeg_2000(opened)
    return None


def bits_of(opened: Opened) -> int:
    """How many bits a channel had that Pillow spreads over the levels 0 to 255."""
    if opened.mode == "1":
        return 1
    found = re.match(r"L;([24])", _rawmode(opened)) if opened.tile else None
    return int(found[1]) if found else 8


def _png(opened: Opened, again: Callable[[], Opened]) -> Numbers | None:
    rawmode = _rawmode(opened)
    if not rawmode.endswith("16B"):
        return None
    bits = _significant_bits(opened)
    transparent = opened.info.get("transparency")
    if opened.mode == "I;16":
        values = _loaded(opened)[..., None]
    elif rawmode == "LA;16B":
        _change_rawmode(opened, lambda _: "RGBA")  # the four bytes as they are
        values = np.ascontiguousarray(_loaded(opened)).view(">u2")
    else:
        values = _both_bytes(opened, again)
    opacity = None
    if values.shape[2] in (2, 4):
        values, opacity = values[..., :-1], values[..., -1] / np.float32(65535)
    elif transparent is not None:
        opacity = (values != np.array(transparent)).any(2).astype(np.float32)
    if bits < 16 and _at_lower_end(values, bits):
        return Numbers(values, (0, 2**bits - 1), "its significant bits", opacity=opacity)
    return Numbers(values, (0, 65535), opacity=opacity)


def _significant_bits(opened: Opened) -> int:
    """How many of 16 bits the chunk sBIT calls significant, at most, in a colour."""
    file: Any = opened.fp
    position = file.tell()
    file.seek(8)
    found = 16
    while len(head := file.read(8)) == 8 and head[4:] not in (b"PLTE", b"IDAT"):
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT" and 1 <= length <= 4:
            found = max(file.read(length)[: 1 if length < 3 else 3])  # what follows is of opacity
            break
        file.seek(length + 4, 1)
    file.seek(position)
    return found if 1 <= found <= 16 else 16


def _at_lower_end(values: np.ndarray, bits: int) -> bool:
    """Whether numbers of so many significant bits stand at the lower end of 16, not at the upper.

    The standard wants them at the upper end, above bits that are zero, repeat the upper ones or come from
    scaling. Many programs leave numbers as they are.
    """
    if values.max() >= 2**bits:
        return False
    significant = values.astype(np.uint32) >> (16 - bits)
    above_zeros = significant << (16 - bits)  # as above repeated bits, since what is left here is dark
    scaled = (significant * (65535 / (2**bits - 1)) + 0.5).astype(np.uint32)
    return not ((values == above_zeros) | (values == scaled)).all()


def _tiff(opened: TiffImagePlugin.TiffImageFile, again: Callable[[], Opened]) -> Numbers | None:
    tags = opened.tag_v2
    bits, kind = max(_several(tags.get(BITS, 1))), max(_several(tags.get(SAMPLE_FORMAT, UNSIGNED)))
    mode, of_libtiff = opened.mode, opened.tile[0].codec_name == "libtiff"
    opacity, whole = None, True
    if bits == 16 and mode in ("RGB", "RGBA", "CMYK"):
        values, whole = _tiff_colours(opened, again)
        if mode == "CMYK":
            paper = np.float32(65535) - values
            values = paper[..., :3] * (paper[..., 3:] / 65535)
        values, opacity = values[..., :3], values[..., 3] / np.float32(65535) if mode == "RGBA" else None
        if opacity is not None and MULTIPLIED in _several(tags.get(EXTRA, ())):
            if not whole:
                raise ValueError(NOT_READ)
            values = np.minimum(values / np.maximum(opacity, np.float32(1e-6))[..., None], 65535)
    elif mode in ("I", "F", "I;16", "I;16B") or (mode == "L" and kind != UNSIGNED):
        if of_libtiff:  # which hands over numbers in the machine's own order of bytes
            _change_rawmode(opened, lambda rawmode: NATIVE.get(rawmode, rawmode))
        values = _loaded(opened)[..., None]
        if mode == "L":
            values = values.view(np.int8)
        elif mode == "I" and kind == UNSIGNED:
            values = values.view(np.uint32)
    else:
        return None
    limits: Limits | None = None
    stated = OF_TYPE
    if mode != "F":
        limits = (0, 2**bits - 1) if kind == UNSIGNED else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    lowest = [float(x) for tag in MINIMUM for x in _several(tags.get(tag, ()))] or list(limits or ())
    highest = [float(x) for tag in MAXIMUM for x in _several(tags.get(tag, ()))]
    if lowest and highest and min(lowest) < max(highest):
        limits, stated = (min(lowest), max(highest)), "its tags MinSampleValue and MaxSampleValue"
    return Numbers(values, limits, stated, tags.get(PHOTOMETRIC) == WHITE_IS_ZERO, opacity, whole)


def _tiff_colours(
    opened: TiffImagePlugin.TiffImageFile, again: Callable[[], Opened]
) -> tuple[np.ndarray, bool]:
    """uint16 [H, W, C], and whether their lower bytes are known."""
    in_planes = opened.tag_v2.get(PLANES) == IN_PLANES
    if in_planes and opened.tile[0].codec_name == "libtiff":  # Pillow then knows the one order only
        return _loaded(opened).astype(np.uint16) << 8 | 128, False
    order = ";16L" if opened.tag_v2.prefix == b"II" else ";16B"
    # Pillow forgets the order of planes; and of colours that are multiplied it would take the upper bytes.
    return _both_bytes(
        opened, again, lambda rawmode: (rawmode + order if in_planes else rawmode).replace("a", "A")
    ), True


def _pnm(opened: Opened) -> Numbers | None:
    """Pillow reads numbers that do not fill their bits one by one, in Python, and scales them."""
    tile = opened.tile[0]
    if opened.mode == "F":
        return Numbers(_loaded(opened)[..., None], None)
    if opened.mode == "I" and tile.codec_name == "raw":
        return Numbers(_loaded(opened)[..., None], (0, 65535))
    if opened.mode == "1" or tile.codec_name == "raw" or not isinstance(tile.args, tuple):
        return None
    maxval = int(tile.args[-1])
    shape = opened.height, opened.width, 3 if opened.mode == "RGB" else 1
    count = shape[0] * shape[1] * shape[2]
    file: Any = opened.fp
    file.seek(tile.offset)
    if tile.codec_name == "ppm_plain":
        words = re.sub(rb"#[^\r\n]*", b"", file.read()).split()[:count]
        values = np.array([int(word) for word in words], np.int64)
    else:
        kind = np.dtype(np.uint8 if maxval < 256 else ">u2")
        contents = file.read(count * kind.itemsize)
        values = np.frombuffer(contents, kind, len(contents) // kind.itemsize)
    if len(values) < count:
        raise OSError("image file is truncated")
    return Numbers(values.reshape(shape), (0, maxval), "its maxval")


def _jpeg_2000(opened: Opened) -> Numbers | None:
    file: Any = opened.fp
    position = file.tell()
    file.seek(0)
    start = (contents := file.read(1 << 20)).find(SIZE_OF_CODESTREAM)
    file.seek(position)
    unknown = 15 if opened.mode == "I;16" else 7
    depth = contents[start + 42] if 0 <= start < len(contents) - 42 else unknown
    bits, signed = (depth & 127) + 1, depth > 127
    if bits <= 8:
        return None
    values = _loaded(opened)
    if opened.mode != "I;16":
        if opened.mode not in ("L", "LA", "RGB", "RGBA"):
            return None
        values = values.reshape(*values.shape[:2], -1)
        colours = 1 if opened.mode.startswith("L") else 3
        opacity = values[..., colours] / np.float32(255) if values.shape[2] > colours else None
        return Numbers(values[..., :colours], (0, 255), opacity=opacity, whole=False)
    # Pillow moves them to the upper end of 16 bits, and signed ones up to begin at 0.
    numbers = values.astype(np.int64)[..., None]
    numbers = numbers >> (16 - bits) if bits <= 16 else numbers << (bits - 16)
    lowest = -(2 ** (bits - 1)) if signed else 0
    return Numbers(numbers + lowest, (lowest, lowest + 2**bits - 1))


def _loaded(opened: Opened) -> np.ndarray:
    """All pixels, upright."""
    ImageOps.exif_transpose(opened, in_place=True)
    return np.asarray(opened)


def _both_bytes(
    opened: Opened, again: Callable[[], Opened], of_file: Callable[[str], str] = str
) -> np.ndarray:
    """The numbers uint16 [H, W, C] of an image with 16 bits a channel.

    Pillow keeps the upper byte of each. With the other order of bytes, it keeps the lower one.

    Args:
        opened: not loaded yet.
        again: opens it once more.
        of_file: from Pillow's word for how pixels lie in the file to the right one.
    """

    def swapped(rawmode: str) -> str:
        channels, _, order = of_file(rawmode).partition(";")
        if order not in SWAPPED:
            raise ValueError(NOT_READ)
        return f"{channels};{SWAPPED[order]}"

    with again() as other:
        _change_rawmode(other, swapped)
        low = _loaded(other)
    _change_rawmode(opened, of_file)
    return _loaded(opened).astype(np.uint16) << 8 | low


def _rawmode(opened: Opened) -> str:
    """How pixels lie in the file, in Pillow's words."""
    args = opened.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _change_rawmode(opened: Opened, change: Callable[[str], str]) -> None:
    for index, tile in enumerate(opened.tile):
        args = tile.args
        opened.tile[index] = tile._replace(
            args=(change(str(args[0])), *args[1:]) if isinstance(args, tuple) else change(str(args))
        )


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,)
