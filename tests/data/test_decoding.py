import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data import decoding
from ddpm.data.decoding import check_channels, decode_all, decode_or_reason, parse_size
from ddpm.data.skipped import check_on_error


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8)


def flat(level: int, side: int = 4) -> bytes:
    return encoded(Image.new("L", (side, side), level))


def decode(*arguments: object, **keywords: object) -> np.ndarray:
    return decoding.decode(*arguments, **keywords).pixels


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
    wide = Image.fromarray(levels.astype(np.int32))
    assert wide.mode == "I"
    big_endian = io.BytesIO(b"P5 4 2 65535\n" + levels.astype(">u2").tobytes())
    for source in (
        encoded(sixteen),
        encoded(sixteen, "TIFF"),
        encoded(wide, "TIFF"),
        big_endian.getvalue(),
    ):
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


@pytest.mark.parametrize("shape", [(40, 80), (80, 40), (40, 40), (3, 6), (60, 29), (1, 5000), (5000, 1)])
@pytest.mark.parametrize("size", [(8, 8), (4, 12), (7, 3), (7, 7)])
def test_every_shape_fits(shape: tuple[int, int], size: tuple[int, int]):
    assert decode(encoded(Image.new("RGB", shape[::-1], "red")), size).shape == (3, *size)


def test_the_middle_is_kept():
    pixels = np.zeros((20, 60), np.uint8)
    pixels[:, 20:40] = 255
    for image in (pixels, pixels.T):
        assert decode(encoded(Image.fromarray(image)), (10, 10)).min() > 235  # edges see beyond the cut
    assert decode(encoded(Image.fromarray(pixels)), (10, 30))[0, :, 0].max() == 0


def test_resizing_is_antialiased():
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    decoded = decode(encoded(Image.fromarray(checks.astype(np.uint8))), (8, 8)).astype(int)
    assert np.abs(decoded - 127.5).max() < 4


def test_a_jpeg_decoded_at_a_fraction_agrees_with_the_whole():
    rows, columns = np.indices((512, 512)) / 50
    pixels = np.stack([np.sin(rows * columns), np.cos(rows), np.sin(columns)], axis=-1)
    image = Image.fromarray((pixels * 100 + 128).astype(np.uint8))
    source = encoded(image, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(source)).convert("RGB").resize((60, 60), Image.Resampling.LANCZOS)
    difference = decode(source, (60, 60)).astype(int) - np.asarray(whole).transpose(2, 0, 1)
    assert 0 < np.abs(difference).max() <= 3


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
        "floats": (encoded(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point"),
        "program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n", "not an image"),
    }


@pytest.mark.parametrize("name", broken())
def test_what_is_no_image_has_a_reason(name: str):
    source, reason = broken()[name]
    found = dict(decode_all([("good", flat(1)), (name, source), ("also good", flat(2))], (4, 4), None))
    assert list(found) == ["good", name, "also good"]
    assert reason in found[name]
    assert [found[other].pixels[0, 0, 0] for other in ("good", "also good")] == [1, 2]


def test_reasons_are_the_same_every_time(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(b"words")
    sources = [b"words", tmp_path / "x.png", tmp_path / "y.png"]
    reasons = [decode_or_reason(source, None, None) for source in sources]
    assert reasons[0] == reasons[1]
    assert "No such file" in reasons[2]


def test_a_reason_is_handed_on():
    assert list(decode_all([("x", "a link")], None, None)) == [("x", "a link")]


def test_bombs_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert "exceeds limit" in decode_or_reason(flat(0, 8), (4, 4), None)


def test_order_is_that_of_the_sources():
    levels = [i % 256 for i in range(1500)]
    found = list(decode_all(((str(i), flat(level)) for i, level in enumerate(levels)), None, None))
    assert [name for name, _ in found] == [str(i) for i in range(1500)]
    assert [image.pixels[0, 0, 0] for _, image in found] == levels


def test_what_it_was_before_is_told():
    source = encoded(Image.new("RGB", (400, 300)), "JPEG")
    assert decoding.decode(source, (8, 8))[1:] == ("RGB", (300, 400))


def test_sizes():
    assert parse_size(32) == (32, 32)
    assert parse_size([32, 48]) == (32, 48)
    for bad in (0, -1, [32, 0], [32], [1, 2, 3], "32", "ab", 3.5, [3.5, 2], True, [True, 2], None):
        with pytest.raises(ValueError, match=r"data\.image_size="):
            parse_size(bad)


def test_channels():
    for good in (None, 1, 3):
        check_channels(good)
    for bad in (0, 2, 4, "3", True, 1.0):
        with pytest.raises(ValueError, match=r"data\.channels="):
            check_channels(bad)


def test_on_error():
    for good in ("skip", "fail"):
        check_on_error(good)
    with pytest.raises(ValueError, match=r"data\.on_error=ignore must be skip or fail"):
        check_on_error("ignore")
