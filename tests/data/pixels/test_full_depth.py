"""Files built by hand, of every number type that is read: levels are what their numbers say, within one."""

import io
import itertools
import struct
import zlib

import files_by_hand as by_hand
import numpy as np
import pytest
from PIL import Image

from ddpm.data.pixels.decoding import Decoded, decode, decode_or_reason
from ddpm.data.pixels.shaping import Shaping

COLOUR = Shaping(channels=3)
EXTRAS = {
    "plain": [],
    "gamma": [(b"gAMA", struct.pack(">I", 100000))],
    "profile": [(b"iCCP", b"x\0\0" + zlib.compress(b"no profile at all"))],
}


def numbers(bits: int, channels: int = 1, shape: tuple[int, int] = (11, 13)) -> np.ndarray:
    """int64 [H, W, C] that hold the lowest and the highest of so many bits."""
    found = np.random.default_rng(bits).integers(0, 2**bits, (*shape, channels))
    found[0, 0], found[-1, -1] = 0, 2**bits - 1
    return found


def levels(
    values: np.ndarray, lowest: float, highest: float, opacity: np.ndarray | None = None
) -> np.ndarray:
    """What is to come of [H, W, C], as float [3, H, W]."""
    found = 255 * (values.astype(float) - lowest) / (highest - lowest)
    if opacity is not None:
        found = found * opacity[..., None] + 255 * (1 - opacity[..., None])
    return np.broadcast_to(found, (*values.shape[:2], 3)).transpose(2, 0, 1)


def agrees(source: bytes, expected: np.ndarray, shaping: Shaping = COLOUR) -> Decoded:
    found = decode(source, shaping)
    assert found.pixels.shape == expected.shape
    worst = np.abs(found.pixels - np.floor(expected + 0.5)).max()
    assert worst <= 1
    return found


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize(
    ("channels", "bits"),
    [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16), (2, 8), (2, 16), (4, 8), (4, 16)],
)
def test_png(channels: int, bits: int, extra: str, interlaced: bool):
    held = numbers(bits, channels)
    highest = 2**bits - 1
    source = by_hand.png(held, bits, chunks=EXTRAS[extra], interlaced=interlaced)
    colours, opacity = (held[..., :-1], held[..., -1] / highest) if channels in (2, 4) else (held, None)
    agrees(source, levels(colours, 0, highest, opacity))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_with_a_transparent_grey(bits: int):
    held = numbers(bits)
    key = held[3, 4, 0]
    source = by_hand.png(held, bits, chunks=[(b"tRNS", struct.pack(">H", key))])
    opacity = (held[..., 0] != key).astype(float)
    agrees(source, levels(held, 0, 2**bits - 1, opacity))


@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_a_transparent_colour(bits: int):
    held = numbers(bits, 3)
    held[5, :4] = held[3, 4]
    held[5, 4:8] = held[3, 4] ^ 1  # differs in the lowest bits only
    source = by_hand.png(held, bits, chunks=[(b"tRNS", struct.pack(">3H", *held[3, 4]))])
    opacity = (held != held[3, 4]).any(2).astype(float)
    agrees(source, levels(held, 0, 2**bits - 1, opacity))


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_with_a_palette(bits: int, transparent: bool):
    held = numbers(bits)
    generator = np.random.default_rng(0)
    palette = generator.integers(0, 256, (2**bits, 3))
    opacities = generator.integers(0, 256, 2**bits)
    chunks = [(b"tRNS", opacities.astype(np.uint8).tobytes())] if transparent else []
    source = by_hand.png(held, bits, palette=palette, chunks=chunks)
    opacity = opacities[held[..., 0]] / 255 if transparent else None
    agrees(source, levels(palette[held[..., 0]], 0, 255, opacity))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_significant_bits_wherever_they_stand(bits: int, channels: int):
    held = numbers(bits, channels)
    shift = 16 - bits
    highest = 2**bits - 1
    colours, opacity = (held[..., :-1], held[..., -1] / highest) if channels in (2, 4) else (held, None)
    expected = levels(colours, 0, highest, opacity)
    chunk = [(b"sBIT", bytes([bits] * channels))]
    upper = [held << shift, held << shift | held >> bits - shift, np.round(held * (65535 / highest))]
    for stored in upper:
        agrees(by_hand.png(stored.astype(int), 16, chunks=chunk), expected)
    lower = held.copy()
    if opacity is not None:  # of opacity nothing else is known than its 16 bits
        lower[..., -1] = np.round(opacity * 65535)
    found = agrees(by_hand.png(lower, 16, chunks=chunk), expected)
    assert (found.values, found.limits) == ((0, highest), (0, highest))


def test_a_dark_image_of_the_upper_bits_stays_dark():
    held = numbers(12) >> 4  # below 256 of 4095, so that all are below 4096
    for stored in (held << 4, held << 4 | held >> 8, np.round(held * (65535 / 4095)).astype(int)):
        source = by_hand.png(stored, 16, chunks=[(b"sBIT", b"\x0c")])
        assert agrees(source, levels(held, 0, 4095)).limits == (0, 65535)


@pytest.mark.parametrize("bits", [0, 16, 17, 255])
def test_significant_bits_that_cannot_be(bits: int):
    held = numbers(16)
    agrees(by_hand.png(held, 16, chunks=[(b"sBIT", bytes([bits]))]), levels(held, 0, 65535))


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("maxval", [1, 7, 100, 254, 255, 256, 1000, 4095, 65534, 65535])
def test_pnm(maxval: int, channels: int, plain: bool):
    held = np.random.default_rng(0).integers(0, maxval + 1, (9, 14, channels))
    held[0, 0], held[-1, -1] = 0, maxval
    agrees(by_hand.pnm(held, maxval, plain=plain), levels(held, 0, maxval))


@pytest.mark.parametrize("plain", [False, True])
def test_pbm(plain: bool):
    held = numbers(1, shape=(5, 11))[..., 0].astype(bool)
    agrees(by_hand.pbm(held, plain=plain), levels(~held[..., None], 0, 1))


def test_pnm_that_breaks_its_own_word():
    held = numbers(6)
    whole = by_hand.pnm(held, 63, plain=False)
    assert decode_or_reason(whole[:-1]) == "image file is truncated"
    assert decode_or_reason(by_hand.pnm(held, 63, plain=True)[:90]) == "image file is truncated"
    assert "it holds 0 to 63, beyond its maxval" in str(decode_or_reason(by_hand.pnm(held, 62, plain=False)))
    assert "beyond its maxval" in str(decode_or_reason(by_hand.pnm(-held, 63, plain=True)))
    assert "invalid literal" in str(decode_or_reason(b"P2 2 1 63 5 five"))


KINDS = [  # bits, SampleFormat, the lowest and the highest number
    (1, 1, 0, 1),
    (2, 1, 0, 3),
    (4, 1, 0, 15),
    (8, 1, 0, 255),
    (8, 2, -128, 127),
    (12, 1, 0, 4095),
    (16, 1, 0, 65535),
    (16, 2, -32768, 32767),
    (32, 1, 0, 2**32 - 1),
    (32, 2, -(2**31), 2**31 - 1),
]


def grey_tiff(bits: int, kind: int, held: np.ndarray, *, order: str, compressed: bool, tags=None) -> bytes:
    raw = by_hand.packed(held[..., 0] & 2**bits - 1, bits, order)
    described = {258: ("H", [bits]), 262: ("H", [1]), 277: ("H", [1]), 339: ("H", [kind]), **(tags or {})}
    return by_hand.tiff([raw], held.shape[:2], described, order=order, compressed=compressed)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "kind", "lowest", "highest"), KINDS)
def test_grey_tiff(bits: int, kind: int, lowest: int, highest: int, order: str, compressed: bool):
    held = numbers(bits) + lowest
    source = grey_tiff(bits, kind, held, order=order, compressed=compressed)
    if order == ">" and bits in (12, 32) and kind == 1:
        assert "of a format that is not read here" in str(decode_or_reason(source))  # as docs/pixels.md says
        return
    found = agrees(source, levels(held, lowest, highest))
    assert found.limits == ((lowest, highest) if (bits, kind) not in ((1, 1), (2, 1), (4, 1)) else (0, 255))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "kind"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1)])
def test_tiff_where_zero_is_white(bits: int, kind: int, compressed: bool):
    held = numbers(bits)
    source = grey_tiff(bits, kind, held, order="<", compressed=compressed, tags={262: ("H", [0])})
    found = agrees(source, 255 - levels(held, 0, 2**bits - 1))
    if bits > 8:
        assert found.limits == (0, 65535)
        shaping = Shaping(channels=3, value_range=(-65535, 65535))
        agrees(source, 255 - levels(held, -65535, 65535), shaping)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zero_is_white", [False, True])
def test_tiff_of_floats(zero_is_white: bool, order: str, compressed: bool):
    held = np.random.default_rng(0).normal(0.5, 1, (9, 8, 1)).astype(np.float32)
    tags = {258: ("H", [32]), 262: ("H", [0 if zero_is_white else 1]), 339: ("H", [3])}

    def source(**more: float) -> bytes:
        stated = {{"lowest": 340, "highest": 341}[name]: ("f", [value]) for name, value in more.items()}
        raw = held.astype(f"{order}f4").tobytes()
        return by_hand.tiff([raw], held.shape[:2], {**tags, **stated}, order=order, compressed=compressed)

    expected = levels(held, -5, 6)
    if zero_is_white:
        expected = 255 - expected
    for stated in ({}, {"highest": 6.0}, {"lowest": -5.0}):
        reason = decode_or_reason(source(**stated))
        assert "numbers of type float32" in str(reason)
        assert "data.value_range" in str(reason)
    found = agrees(source(lowest=-5.0, highest=6.0), expected)
    assert found.values == (held.min(), held.max())
    assert found.limits == (-5, 6)
    agrees(source(), expected, Shaping(channels=3, value_range=(-5, 6)))
    agrees(source(lowest=0.0, highest=1.0), expected, Shaping(channels=3, value_range=(-5, 6)))


@pytest.mark.parametrize(
    ("tags", "lowest", "highest"),
    [
        ({281: ("H", [4095])}, 0, 4095),
        ({280: ("H", [10]), 281: ("H", [4095])}, 10, 4095),
        ({341: ("H", [4095])}, 0, 4095),
        ({340: ("f", [9.5]), 341: ("f", [4095.5])}, 9.5, 4095.5),
        ({281: ("H", [0])}, 0, 65535),
        ({280: ("H", [9]), 281: ("H", [9])}, 0, 65535),
    ],
)
def test_tiff_that_states_its_range(tags: dict, lowest: float, highest: float):
    held = np.maximum(numbers(12), 10)
    for order, compressed in itertools.product("<>", (False, True)):
        source = grey_tiff(16, 1, held, order=order, compressed=compressed, tags=tags)
        assert agrees(source, levels(held, lowest, highest)).limits == (lowest, highest)


def test_tiff_beyond_the_range_that_it_states():
    source = grey_tiff(16, 1, numbers(12), order="<", compressed=False, tags={281: ("H", [4094])})
    reason = str(decode_or_reason(source))
    assert "it holds 0 to 4095, beyond its tags MinSampleValue and MaxSampleValue, 0 to 4094" in reason
    assert "data.value_range" in reason


def test_the_range_of_a_byte_is_that_of_a_byte():
    held = numbers(6)
    source = grey_tiff(8, 1, held, order="<", compressed=False, tags={281: ("H", [63])})
    agrees(source, levels(held, 0, 255))
    agrees(by_hand.png(held, 8, chunks=[(b"sBIT", b"\6")]), levels(held, 0, 255))


def colour_tiff(
    held: np.ndarray, bits: int, tags: by_hand.Tags, *, order: str, compressed: bool, planes: bool
):
    channels = held.shape[2]
    described = {
        258: ("H", [bits] * channels),
        262: ("H", [2]),
        277: ("H", [channels]),
        284: ("H", [1 + planes]),
    }
    parts = [held[..., index] for index in range(channels)] if planes else [held.reshape(len(held), -1)]
    raw = [by_hand.packed(part, bits, order) for part in parts]
    return by_hand.tiff(raw, held.shape[:2], {**described, **tags}, order=order, compressed=compressed)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["RGB", "RGBX", "RGBA", "RGBa"])
def test_colour_tiff(kind: str, bits: int, order: str, compressed: bool, planes: bool):
    held = numbers(bits, len(kind))
    highest = 2**bits - 1
    extra = {"RGB": None, "RGBX": 0, "RGBA": 2, "RGBa": 1}[kind]
    tags = {} if extra is None else {338: ("H", [extra])}
    opacity = held[..., 3] / highest if kind in ("RGBA", "RGBa") else None
    colours = held[..., :3]
    if kind == "RGBa":
        held[..., :3] = np.round(colours * opacity[..., None])
        colours = held[..., :3] / np.maximum(opacity, 1e-9)[..., None]
    source = colour_tiff(held, bits, tags, order=order, compressed=compressed, planes=planes)
    by_planes = {(False, "RGBX", 8), (False, "RGBX", 16), (False, "RGBa", 8), (True, "RGBa", 16)}
    if planes and (compressed, kind, bits) in by_planes:
        assert isinstance(decode_or_reason(source), str)  # as docs/pixels.md says
    else:
        agrees(source, levels(colours, 0, highest, opacity))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_colour_tiff_that_states_its_range(compressed: bool, planes: bool, order: str):
    held = numbers(12, 3)
    tags = {281: ("H", [4095] * 3)}
    source = colour_tiff(held, 16, tags, order=order, compressed=compressed, planes=planes)
    shaping = Shaping(channels=3, value_range=(0, 4096))
    if planes and compressed:
        assert "only the upper byte" in str(decode_or_reason(source))
        assert "only the upper byte" in str(decode_or_reason(source, shaping))
        return
    agrees(source, levels(held, 0, 4095))
    agrees(source, levels(held, 0, 4096), shaping)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("extra", [0, 1, 2])
def test_grey_tiff_with_a_second_channel(extra: int, compressed: bool):
    held = numbers(8, 2)
    opacity = None if extra == 0 else held[..., 1] / 255
    colours = held[..., :1]
    if extra == 1:
        held[..., 0] = np.round(held[..., 0] * opacity)
        colours = held[..., :1] / np.maximum(opacity, 1e-9)[..., None]
    tags = {262: ("H", [1]), 338: ("H", [extra])}
    source = colour_tiff(held, 8, tags, order="<", compressed=compressed, planes=False)
    agrees(source, levels(colours, 0, 255, opacity))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_tiff_of_inks(compressed: bool, bits: int):
    held = numbers(bits, 4)
    source = colour_tiff(held, bits, {262: ("H", [5])}, order="<", compressed=compressed, planes=False)
    paper = 1 - held / (2**bits - 1)
    agrees(source, levels(paper[..., :3] * paper[..., 3:], 0, 1))


def test_tiff_of_lightness_and_chroma():
    held = numbers(8, 3)
    source = colour_tiff(held, 8, {262: ("H", [6])}, order="<", compressed=False, planes=False)
    y, blue, red = (held - [0, 128, 128]).transpose(2, 0, 1)
    colours = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=-1)
    agrees(source, levels(colours.clip(0, 255), 0, 255))


def test_tiff_of_cie_lab():
    """Within what its 8 bits leave open; white is that of D50, as ICC profiles have it."""
    inside = np.random.default_rng(0).integers(60, 200, (9, 9, 3)) / 255
    linear = np.where(inside > 0.04045, ((inside + 0.055) / 1.055) ** 2.4, inside / 12.92)
    to_xyz = [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
    xyz = linear @ np.array(to_xyz).T / [0.9642, 1, 0.8251]
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / 3 / (6 / 29) ** 2 + 4 / 29)
    lightness, a, b = 116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    held = np.round(np.stack([lightness * 2.55, a, b], axis=-1)).astype(int)
    source = colour_tiff(held & 255, 8, {262: ("H", [8])}, order="<", compressed=False, planes=False)
    found = decode(source, COLOUR).pixels
    assert np.abs(found - 255 * inside.transpose(2, 0, 1)).max() <= 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_tiff_with_a_palette(bits: int, order: str):
    held = numbers(bits)
    palette = np.random.default_rng(1).integers(0, 256, (2**bits, 3))
    tags = {262: ("H", [3]), 320: ("H", (palette.T * 257).ravel().tolist())}
    agrees(
        grey_tiff(bits, 1, held, order=order, compressed=False, tags=tags),
        levels(palette[held[..., 0]], 0, 255),
    )


@pytest.mark.parametrize(("bits", "kind"), [(16, 3), (64, 3), (64, 1), (24, 1), (10, 1)])
def test_number_types_that_are_not_read(bits: int, kind: int):
    tags = {258: ("H", [bits]), 262: ("H", [1]), 339: ("H", [kind])}
    source = by_hand.tiff([bytes(4 * 4 * 8)], (4, 4), tags)
    assert "not an image, or of a format that is not read here" in str(decode_or_reason(source))


def test_bmp():
    held = numbers(8, 3, (7, 8))
    agrees(by_hand.bmp(held[..., ::-1].reshape(7, -1), 24), levels(held, 0, 255))
    for bits in (1, 4, 8):
        indices = numbers(bits, 1, (7, 32))
        palette = np.random.default_rng(2).integers(0, 256, (2**bits, 3))
        entries = np.concatenate([palette[:, ::-1], np.zeros((2**bits, 1), int)], axis=1).astype(np.uint8)
        rows = np.frombuffer(by_hand.packed(indices[..., 0], bits), np.uint8).reshape(7, -1)
        agrees(by_hand.bmp(rows, bits, palette=entries.tobytes()), levels(palette[indices[..., 0]], 0, 255))
    for masks, highest in (((0x7C00, 0x3E0, 0x1F), [31, 31, 31]), ((0xF800, 0x7E0, 0x1F), [31, 63, 31])):
        held = numbers(5, 3, (7, 8)) * np.array(highest) // 31
        red, green, blue = held.transpose(2, 0, 1)
        pixels = red * (masks[0] & -masks[0]) | green * (masks[1] & -masks[1]) | blue
        rows = np.frombuffer(pixels.astype("<u2").tobytes(), np.uint8).reshape(7, -1)
        agrees(by_hand.bmp(rows, 16, masks=masks), levels(held / highest, 0, 1))


def test_pfm():
    held = np.random.default_rng(0).random((5, 6, 1)).astype(np.float32)
    source = by_hand.pfm(held[..., 0])
    agrees(source, levels(held, 0, 1), Shaping(channels=3, value_range=(0, 1)))
    assert "numbers of type float32" in str(decode_or_reason(source))


def jpeg_2000(held: np.ndarray, bits: int, signed: bool = False) -> bytes:
    """Pillow writes 16 bits. The codestream keeps what is left of the middle of its range, so with another
    number of bits in its head it means numbers around the middle of that.
    """
    middle = 0 if signed else 2 ** (bits - 1)
    buffer = io.BytesIO()
    stored = (held[..., 0] - middle + 2**15).astype(np.uint16)
    Image.fromarray(stored).save(buffer, "JPEG2000", no_jp2=True, irreversible=False)
    head = bytearray(buffer.getvalue())
    assert head[42] == 15
    head[42] = bits - 1 | signed << 7
    return bytes(head)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jpeg_2000(bits: int, signed: bool):
    lowest = -(2 ** (bits - 1)) if signed else 0
    held = numbers(bits, shape=(32, 40)) + lowest
    found = agrees(jpeg_2000(held, bits, signed), levels(held, lowest, lowest + 2**bits - 1))
    assert found.limits == (lowest, lowest + 2**bits - 1)
    assert found.values == (held.min(), held.max())


def test_jpeg_2000_behind_a_lot_of_other_things():
    held = numbers(16, shape=(32, 40))
    buffer = io.BytesIO()
    Image.fromarray(held[..., 0].astype(np.uint16)).save(buffer, "JPEG2000", irreversible=False)
    whole = buffer.getvalue()
    start = whole.index(b"jp2c") - 4
    other = struct.pack(">I", 8 + 100_000) + b"free" + bytes(100_000)
    agrees(whole[:start] + other + whole[start:], levels(held, 0, 65535))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [10, 16])
def test_deep_colours_of_jpeg_2000_are_read_by_their_upper_bytes(bits: int, channels: int):
    """Eight bits are written; a head that names more moves them to the middle of those."""
    held = numbers(8, channels, (32, 40))
    buffer = io.BytesIO()
    pixels = held[..., 0] if channels == 1 else held
    modes = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
    image = Image.frombytes(modes[channels], (40, 32), pixels.astype(np.uint8).tobytes())
    image.save(buffer, "JPEG2000", no_jp2=True, irreversible=False, mct=0)
    head = bytearray(buffer.getvalue())
    for channel in range(channels):
        head[42 + 3 * channel] = bits - 1
    stands_for = held + 2 ** (bits - 1) - 128
    highest = 2**bits - 1
    colours, opacity = stands_for, None
    if channels in (2, 4):
        colours, opacity = stands_for[..., :-1], stands_for[..., -1] / highest
    agrees(bytes(head), levels(colours, 0, highest, opacity))
    if channels > 1:
        reason = str(decode_or_reason(bytes(head), Shaping(value_range=(0, highest))))
        assert "only the upper byte" in reason


def test_colours_of_jpeg_2000():
    held = numbers(8, 3, (32, 40))
    buffer = io.BytesIO()
    Image.fromarray(held.astype(np.uint8)).save(buffer, "JPEG2000", irreversible=False, mct=0)
    agrees(buffer.getvalue(), levels(held, 0, 255))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_range_is_in_the_numbers_of_the_file(bits: int):
    held = numbers(bits)
    highest = 2**bits - 1
    shaping = Shaping(channels=3, value_range=(-1, 2 * highest))
    for source in (
        by_hand.png(held, bits),
        grey_tiff(bits, 1, held, order="<", compressed=False),
        by_hand.pnm(held, highest, plain=False),
    ):
        found = agrees(source, levels(held, -1, 2 * highest), shaping)
        assert (found.values, found.limits) == ((0, highest), (-1, 2 * highest))
    narrow = Shaping(value_range=(0, highest - 0.5))
    reason = str(decode_or_reason(by_hand.png(held, bits), narrow))
    assert f"it holds 0 to {highest}, beyond data.value_range, 0 to {highest - 0.5}" in reason


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_range_leaves_opacity_as_it_is(bits: int, channels: int):
    held = numbers(bits, channels)
    highest = 2**bits - 1
    colours, opacity = (held[..., :-1], held[..., -1] / highest) if channels in (2, 4) else (held, None)
    shaping = Shaping(channels=3, value_range=(0, 3 * highest))
    agrees(by_hand.png(held, bits), levels(colours, 0, 3 * highest, opacity), shaping)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_are_upright(orientation: int):
    """What an orientation does to an 8-bit image it does to one of 16 bits, in every way of reading."""
    held = numbers(8, 3, (6, 9)) * 257
    held[0, 0] = 65535
    tags = {274: ("H", [orientation])}
    turned = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: x.transpose(1, 0, 2)[:, ::-1],
        7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
        8: lambda x: x.transpose(1, 0, 2)[::-1],
    }[orientation]
    expected = levels(turned(held), 0, 65535)
    for order, compressed in itertools.product("<>", (False, True)):
        agrees(colour_tiff(held, 16, tags, order=order, compressed=compressed, planes=False), expected)
    grey = levels(turned(held[..., :1]), 0, 65535)
    agrees(grey_tiff(16, 1, held[..., :1], order="<", compressed=False, tags=tags), grey)
    exif = Image.Exif()
    exif[274] = orientation
    chunk = [(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))]
    for channels in (1, 3):
        source = by_hand.png(held[..., :channels], 16, chunks=chunk)
        agrees(source, expected if channels == 3 else grey)
