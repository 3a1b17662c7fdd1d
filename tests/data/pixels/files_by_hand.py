"""Image files built from numbers byte by byte, so that what is in them is known without any library."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

COLOUR_TYPES = {1: 0, 3: 2, 2: 4, 4: 6}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column, first row, step of columns, step of rows of each pass."""

Tags = Mapping[int, tuple[str, Sequence[float]]]
"""Of TIFF: the letter that struct has for the type, and the numbers."""


def packed(numbers: np.ndarray, bits: int, order: str = ">") -> bytes:
    """Rows of numbers int [H, W], each beginning at a byte, with the upper bits first."""
    if bits in (8, 16, 32):
        return numbers.astype(f"{order}u{bits // 8}").tobytes()
    spread = numbers[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(spread.reshape(len(numbers), -1).astype(np.uint8), axis=1).tobytes()


def png(
    numbers: np.ndarray,
    bits: int,
    *,
    palette: np.ndarray | None = None,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    interlaced: bool = False,
) -> bytes:
    """A PNG of int [H, W, C], with every kind of filter; of the chunks, tRNS goes behind the palette."""
    height, width, channels = numbers.shape
    colour_type = 3 if palette is not None else COLOUR_TYPES[channels]
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    data = b""
    for column, row, step_x, step_y in passes:
        part = numbers[row::step_y, column::step_x]
        if part.size:
            data += _filtered(part, bits)
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, int(interlaced)))]
    parts += [chunk for chunk in chunks if chunk[0] != b"tRNS"]
    if palette is not None:
        parts.append((b"PLTE", palette.astype(np.uint8).tobytes()))
    parts += [chunk for chunk in chunks if chunk[0] == b"tRNS"]
    parts += [(b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))
        for name, contents in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _filtered(numbers: np.ndarray, bits: int) -> bytes:
    height, width, channels = numbers.shape
    raw = packed(numbers.reshape(height, width * channels), bits)
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1).astype(int)
    unit = max(1, bits * channels // 8)
    out = b""
    for y in range(height):
        x = rows[y]
        above = rows[y - 1] if y else np.zeros_like(x)
        left = np.concatenate([np.zeros(unit, int), x])[: len(x)]
        corner = np.concatenate([np.zeros(unit, int), above])[: len(x)]
        guess = left + above - corner
        distances = np.abs(np.stack([guess - left, guess - above, guess - corner]))
        paeth = np.choose(distances.argmin(0), [left, above, corner])
        kind = y % 5
        predicted = [np.zeros_like(x), left, above, (left + above) // 2, paeth][kind]
        out += bytes([kind]) + ((x - predicted) % 256).astype(np.uint8).tobytes()
    return out


def pnm(numbers: np.ndarray, maxval: int, *, plain: bool) -> bytes:
    """PGM or PPM of int [H, W, C]."""
    height, width, channels = numbers.shape
    kind = {1: 5, 3: 6}[channels] - 3 * plain
    head = f"P{kind} # by hand\n{width} {height}\n{maxval}\n".encode()
    if plain:
        rows = [" ".join(map(str, row.ravel())) + " # a row" for row in numbers]
        return head + "\n".join(rows).encode() + b"\n"
    return head + numbers.astype(">u1" if maxval < 256 else ">u2").tobytes()


def pbm(bits: np.ndarray, *, plain: bool) -> bytes:
    """PBM of bool [H, W], where True is black."""
    height, width = bits.shape
    if plain:
        return (
            f"P1\n{width} {height}\n".encode()
            + "\n".join("".join(map(str, row)) for row in bits.astype(int)).encode()
        )
    return f"P4\n{width} {height}\n".encode() + np.packbits(bits, axis=1).tobytes()


def pfm(numbers: np.ndarray) -> bytes:
    """PFM of float32 [H, W]: the lowest row comes first."""
    height, width = numbers.shape
    return f"Pf\n{width} {height}\n-1.0\n".encode() + numbers[::-1].astype("<f4").tobytes()


def tiff(
    planes: Sequence[bytes], size: tuple[int, int], tags: Tags, *, order: str = "<", compressed: bool = False
) -> bytes:
    """A TIFF of strips, one a plane, of (height, width)."""
    strips = [zlib.compress(plane) for plane in planes] if compressed else list(planes)
    codes = {"H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12}
    known: dict[int, tuple[str, Sequence[float]]] = {
        256: ("I", [size[1]]),
        257: ("I", [size[0]]),
        259: ("H", [8 if compressed else 1]),
        278: ("I", [size[0]]),
        279: ("I", [len(strip) for strip in strips]),
        **tags,
    }
    after = 8 + 2 + 12 * (len(known) + 1) + 4
    entries, beyond = {}, b""
    for tag, (letter, values) in known.items():
        raw = struct.pack(f"{order}{len(values)}{letter}", *values)
        entries[tag] = codes[letter], len(values), raw
    starts = after + sum(len(raw) for _, _, raw in entries.values() if len(raw) > 4) + 4 * len(strips)
    offsets = [starts + sum(map(len, strips[:index])) for index in range(len(strips))]
    entries[273] = 4, len(strips), struct.pack(f"{order}{len(strips)}I", *offsets)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, (code, count, raw) in sorted(entries.items()):
        if len(raw) > 4:
            directory += struct.pack(f"{order}HHII", tag, code, count, after + len(beyond))
            beyond += raw
        else:
            directory += struct.pack(f"{order}HHI", tag, code, count) + raw.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    whole = head + directory + struct.pack(f"{order}I", 0) + beyond
    return whole.ljust(starts, b"\0") + b"".join(strips)


def bmp(rows: np.ndarray, bits: int, *, palette: bytes = b"", masks: Sequence[int] = ()) -> bytes:
    """A BMP of rows of bytes uint8 [H, n], from the top; n is a multiple of four."""
    height, width = len(rows), rows.shape[1] * 8 // bits
    extra = struct.pack(f"<{len(masks)}I", *masks)
    start = 14 + 40 + len(extra) + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + rows.size, 0, 0, start)
    compression = 3 if masks else 0
    head += struct.pack("<IiiHHIIiiII", 40, width, -height, 1, bits, compression, rows.size, 0, 0, 0, 0)
    return head + extra + palette + rows.astype(np.uint8).tobytes()
