import io
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data.pixels import decoding
from ddpm.data.pixels.decoding import Decoded, decode_all, decode_or_reason, from_array
from ddpm.data.pixels.shaping import Shaping


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)


def flat(level: int, side: int = 4) -> bytes:
    return encoded(Image.new("L", (side, side), level))


def decode(
    source: decoding.Encoded, size: tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
    return decoding.decode(source, Shaping(size, channels)).pixels


def test_pixels_of_the_right_size_come_through_unchanged():
    pixels = noise(5, 7)
    source = encoded(Image.fromarray(pixels))
    for size in (None, (5, 7)):
        decoded = decode(source, size)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels.transpose(2, 0, 1))


def test_a_file_is_read_like_its_contents(tmp_path: Path):
    source = encoded(Image.fromarray(noise(4, 4)))
    (tmp_path / "x").write_bytes(source)
    np.testing.assert_array_equal(decode(tmp_path / "x"), decode(source))


def test_grey_is_told_by_the_pixels():
    grey = Image.fromarray(noise(4, 4)[..., 0])
    for image in (grey, grey.convert("RGB"), grey.convert("P"), grey.convert("LA")):
        np.testing.assert_array_equal(decode(encoded(image)), np.asarray(grey)[None])
    for colour in ((9, 9, 1), (9, 1, 9), (1, 9, 9)):
        assert decode(encoded(Image.new("RGB", (2, 2), colour)))[:, 0, 0].tolist() == list(colour)
    assert decode(encoded(grey), channels=3).shape == (3, 4, 4)
    assert decode(encoded(Image.fromarray(noise(4, 4))), channels=1).shape == (1, 4, 4)


def test_sixteen_bits_are_scaled_to_eight():
    levels = np.array([[0, 1, 128, 129], [257, 32768, 65535, 200 * 257]], np.uint16)
    expected = [[0, 0, 0, 1], [1, 128, 255, 200]]
    sixteen = Image.fromarray(levels)
    assert sixteen.mode == "I;16"
    big_endian = io.BytesIO(b"P5 4 2 65535\n" + levels.astype(">u2").tobytes())
    for source in (encoded(sixteen), encoded(sixteen, "TIFF"), big_endian.getvalue()):
        np.testing.assert_array_equal(decode(source), [expected])


def test_one_bit():
    bits = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(bits))), [bits * 255])


def test_transparent_parts_turn_white():
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    expected = np.array([[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(rgba))), expected)
    grey_alpha = Image.fromarray(np.array([[0, 0]], np.uint8)).convert("LA")
    grey_alpha.putalpha(Image.fromarray(np.array([[255, 0]], np.uint8)))
    np.testing.assert_array_equal(decode(encoded(grey_alpha)), [[[0, 255]]])


def test_a_transparent_colour_of_a_palette_turns_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode(encoded(image))[:, 0].tolist() == [[10, 40], [20, 50], [30, 60]]
    for transparency in (0, b"\x00\xff"):
        source = encoded(image, transparency=transparency)
        assert decode(source)[:, 0].tolist() == [[255, 40], [255, 50], [255, 60]]


def test_inks():
    red = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for source in (encoded(red, "TIFF"), encoded(red, "JPEG", quality=100)):
        np.testing.assert_allclose(decode(source)[:, 4, 4], [255, 0, 0], atol=3)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF"])
def test_upright_by_exif(file_format: str):
    image = Image.new("L", (32, 16), 0)
    image.paste(255, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the top is on the right
    decoded = decode(encoded(image, file_format, exif=exif))
    assert decoded.shape == (1, 32, 16)
    assert decoded[0, :15].min() > 250
    assert decoded[0, 17:].max() < 5


def test_of_an_animation_the_first_image():
    frames = [Image.new("L", (4, 4), level) for level in (10, 200)]
    source = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.unique(decode(source)).tolist() == [10]


def broken() -> dict[str, tuple[bytes, str]]:
    whole = encoded(Image.fromarray(noise(32, 32)))
    return {
        "nothing": (b"", "empty"),
        "text": (b"these are words", "not an image"),
        "truncated": (whole[: len(whole) // 2], "truncated"),
        "truncated jpeg": (encoded(Image.fromarray(noise(64, 64)), "JPEG")[:2000], "truncated"),
        "header only": (whole[:20], ""),
        "floats": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "data.value_range"),
        "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", "not an image"),
    }


@pytest.mark.parametrize("name", broken())
def test_what_is_no_image_has_a_reason(name: str):
    source, reason = broken()[name]
    first, found, last = decode_all([flat(1), source, flat(2)], Shaping((4, 4)))
    assert isinstance(found, str)
    assert reason in found
    assert isinstance(first, Decoded)
    assert isinstance(last, Decoded)
    assert (first.pixels[0, 0, 0], last.pixels[0, 0, 0]) == (1, 2)


def test_reasons_are_the_same_every_time(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"words")
    sources = [b"words", tmp_path / "x.png", tmp_path / "y.png"]
    reasons = [decode_or_reason(source) for source in sources]
    assert reasons[0] == reasons[1]
    assert "No such file" in str(reasons[2])


def test_a_reason_is_handed_on():
    assert list(decode_all(["a link"])) == ["a link"]


def test_bombs_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert "exceeds limit" in str(decode_or_reason(flat(0, 8), Shaping((4, 4))))


def test_order_is_that_of_the_sources():
    levels = [i % 256 for i in range(1500)]
    found = list(decode_all(flat(level) for level in levels))
    assert [image.pixels[0, 0, 0] for image in found if isinstance(image, Decoded)] == levels


def test_no_thread_is_left_where_nobody_reads_on():
    before = threading.active_count()
    images = decode_all(flat(i % 256) for i in range(1500))
    next(images)
    assert threading.active_count() > before
    images.close()
    assert threading.active_count() == before


def test_only_a_little_is_read_ahead():
    asked = []

    def sources() -> Iterator[bytes]:
        for i in range(100_000):
            asked.append(i)
            yield b""

    images = decode_all(sources())
    next(images)
    assert len(asked) <= decoding.CHUNK * (2 * decoding.THREADS + 2)
    images.close()


def test_what_it_was_before_is_told():
    source = encoded(Image.new("RGB", (400, 300)), "JPEG")
    found = decoding.decode(source, Shaping((8, 8)))
    assert (found.mode, found.size) == ("RGB", (300, 400))
    assert (found.values, found.limits) == ((0, 0), (0, 255))


def test_what_it_held_is_told():
    """Of an image that spans little, exactly: resizing would hide its extremes."""
    pixels = np.full((64, 64), 7, np.uint8)
    pixels[10, 10], pixels[40, 40] = 3, 15
    assert decoding.decode(encoded(Image.fromarray(pixels)), Shaping((4, 4))).values == (3, 15)
    pixels[20, 20] = 200
    lowest, highest = decoding.decode(encoded(Image.fromarray(pixels)), Shaping((64, 64))).values
    assert (lowest, highest) == (3, 200)
    sixteen = pixels.astype(np.uint16) * 3
    assert decoding.decode(encoded(Image.fromarray(sixteen)), Shaping((4, 4))).values == (9, 600)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kind", "value_range", "lowest", "highest"),
    [
        (np.uint8, None, 0, 255),
        (np.uint16, None, 0, 65535),
        (bool, None, 0, 1),
        (np.uint8, (0, 100), 0, 100),
        (np.int8, (-128, 127), -128, 127),
        (np.int64, (0, 255), 0, 255),
        (np.uint64, (0, 2**40), 0, 2**40),
        (np.float16, (-1, 1), -1, 1),
        (np.float32, (-1, 1), -1, 1),
        (">f8", (0, 1e300), 0, 1e300),
    ],
)
def test_arrays(
    kind: type, value_range: tuple[float, float] | None, lowest: float, highest: float, channels: int
):
    held = (np.random.default_rng(0).random((9, 8, channels)) * (highest - lowest) + lowest).astype(kind)
    held[0, 0], held[-1, -1] = lowest, highest
    found = from_array(held, Shaping(channels=channels, value_range=value_range))
    expected = 255 * ((held.astype(float) - lowest) / (highest - lowest))
    assert np.abs(found.pixels - expected.transpose(2, 0, 1)).max() <= 0.5 + 1e-4
    assert (found.values, found.limits) == ((lowest, highest), (lowest, highest))
    assert (found.mode, found.size) == (np.dtype(kind).name, (9, 8))


@pytest.mark.parametrize(("kind", "highest"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1.0)])
def test_the_fourth_channel_of_an_array_is_opacity(kind: type, highest: float):
    held = (np.random.default_rng(0).random((9, 8, 4)) * highest).astype(kind)
    value_range = (0, 1) if kind == np.float32 else None
    found = from_array(held, Shaping(value_range=value_range))
    colour, opacity = held[..., :3] / highest, held[..., 3:] / highest
    expected = 255 * (colour * opacity + 1 - opacity)
    assert np.abs(found.pixels - expected.transpose(2, 0, 1)).max() <= 0.51


def test_arrays_are_shaped_like_files():
    held = noise(40, 30)
    for shaping in (Shaping((8, 8)), Shaping((8, 4), 1, "box"), Shaping((8, 8), 3, "nearest", "none")):
        file = decoding.decode(encoded(Image.fromarray(held)), shaping)
        np.testing.assert_array_equal(from_array(held, shaping).pixels, file.pixels)
    assert from_array(np.repeat(held[..., :1], 3, 2)).pixels.shape == (1, 40, 30)


@pytest.mark.parametrize(
    ("array", "value_range", "reason"),
    [
        (np.zeros((4, 4, 3), np.float32), None, "numbers of type float32, here 0, and nothing says"),
        (np.zeros((4, 4, 3), np.int32), None, "data.value_range"),
        (np.full((4, 4, 1), np.nan), (0, 1), "it holds nan, beyond data.value_range, 0 to 1"),
        (np.full((4, 4, 1), np.inf), (0, 1), "it holds inf"),
        (np.full((4, 4, 1), 256), (0, 255), "it holds 256, beyond data.value_range, 0 to 255"),
        (np.full((4, 4, 1), -0.01), (0, 1), "it holds -0.01"),
        (np.zeros((4, 4), np.uint8), None, "an array of 4x4, which is not height x width x channels"),
        (np.zeros((4, 4, 256), np.uint8), None, "it has 256 channels; at most 255"),
        (np.zeros((3, 4, 4, 3), np.uint8), None, "an array of 3x4x4x3"),
        (np.zeros((0, 4, 3), np.uint8), None, "an array of 0x4x3"),
        (np.zeros((4, 4, 3), complex), (0, 1), "values of type complex128 are no levels"),
        (np.full((4, 4, 3), "x"), None, "are no levels"),
        (np.full((4, 4, 4), None), (0, 1), "are no levels"),
    ],
)
def test_arrays_that_are_no_images(array: np.ndarray, value_range: tuple[float, float] | None, reason: str):
    with pytest.raises(ValueError, match=re.escape(reason)):
        from_array(array, Shaping(value_range=value_range))


def test_a_file_that_git_has_not_fetched_says_how_to(tmp_path: Path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (tmp_path / "a.png").write_bytes(pointer)
    for source in (pointer, tmp_path / "a.png"):
        assert "git lfs pull" in decode_or_reason(source)
