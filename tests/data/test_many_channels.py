"""Images of any number of channels: arrays, TIFF files, and the pictures that show them."""

import io
import struct
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.images import ImageSet
from ddpm.data.pixels.channels_of_tiff import channels_of
from ddpm.data.pixels.decoding import decode, from_array
from ddpm.data.pixels.shaping import Shaping
from ddpm.data.sources.arrays import Arrays
from ddpm.data.sources.folder import Folder
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.inception import Inception
from ddpm.evaluation.extractors.pixels import Pixels
from ddpm.sampling.figures import BETWEEN_CHANNELS, channels_said, enlarged, png, side_by_side


def images(n: int, channels: int, kind: str = "u1") -> np.ndarray:
    """[N, H, W, C] of numbers that tell each pixel from its neighbours."""
    return np.random.default_rng(channels).integers(0, 256, (n, 6, 7, channels)).astype(kind)


def tiff(held: np.ndarray, *, planes: bool = False, deflate: bool = False, pages: bool = False) -> bytes:
    """A little-endian TIFF of [H, W, C], in strips of four rows, by hand."""
    height, width, channels = held.shape
    parts = [held[..., i : i + 1] for i in range(channels)]
    directories = [[part] for part in parts] if pages else [parts if planes else [held]]
    file = bytearray(b"II*\0\0\0\0\0")
    link = 4
    for page in directories:
        strips = [np.ascontiguousarray(part[top : top + 4]).tobytes() for part in page for top in (0, 4)]
        strips = [zlib.compress(strip) if deflate else strip for strip in strips]
        offsets = []
        for strip in strips:
            offsets.append(len(file))
            file += strip
        samples = 1 if pages else channels
        bits = held.dtype.itemsize * 8
        tags = {
            256: [width], 257: [height], 258: [bits] * samples, 259: [8 if deflate else 1], 262: [1],
            273: offsets, 277: [samples], 278: [4], 279: [len(strip) for strip in strips],
            284: [2 if planes else 1], 339: [{"u": 1, "f": 3}[held.dtype.kind]] * samples,
        }  # fmt: skip
        entries = b""
        for tag, values in tags.items():
            packed = struct.pack(f"<{len(values)}I", *values)
            if len(values) > 1:
                where = len(file)
                file += packed
                packed = struct.pack("<I", where)
            entries += struct.pack("<HHI", tag, 4, len(values)) + packed
        file[link : link + 4] = struct.pack("<I", len(file))
        link = len(file) + 2 + len(entries)
        file += struct.pack("<H", len(tags)) + entries + bytes(4)
    return bytes(file)


@pytest.mark.parametrize("channels", [2, 5, 13])
@pytest.mark.parametrize("first", [False, True])
def test_arrays_of_any_number_of_channels_are_read_as_they_are(tmp_path: Path, channels: int, first: bool):
    held = images(10, channels)
    np.savez(tmp_path / "x.npz", images=held.transpose(0, 3, 1, 2) if first else held)
    source = Arrays(tmp_path / "x.npz", channels=channels, validation_fraction=0, cache_dir=tmp_path)
    found = source.read().train.images
    assert found.shape == (10, channels, 6, 7)
    assert sorted(map(bytes, found)) == sorted(map(bytes, held.transpose(0, 3, 1, 2)))


def test_few_channels_are_found_without_being_told(tmp_path: Path):
    np.savez(tmp_path / "x.npz", images=images(10, 5))
    assert Arrays(tmp_path / "x.npz", cache_dir=tmp_path).read().image_shape == (5, 6, 7)


def test_the_fourth_channel_is_opacity_until_four_are_asked_for():
    held = images(1, 4)[0]
    assert from_array(held).pixels.shape == (3, 6, 7)
    np.testing.assert_array_equal(from_array(held, Shaping(channels=4)).pixels, held.transpose(2, 0, 1))


def test_each_channel_is_resized_as_a_grey_image_is():
    held = images(1, 5)[0]
    whole = from_array(held, Shaping((3, 3))).pixels
    for channel in range(5):
        alone = from_array(held[..., channel : channel + 1], Shaping((3, 3))).pixels
        np.testing.assert_array_equal(whole[channel : channel + 1], alone)


def test_another_number_of_channels_than_asked_for_is_refused():
    with pytest.raises(ValueError, match=r"it has 5 channels, and data\.channels=3 is asked for"):
        from_array(images(1, 5)[0], Shaping(channels=3))


@pytest.mark.parametrize("settings", [{}, {"planes": True}, {"deflate": True}, {"pages": True}])
def test_tiff_files_of_five_channels(settings: dict[str, bool]):
    held = images(1, 5)[0]
    found = decode(tiff(held, **settings), Shaping(channels=5))
    np.testing.assert_array_equal(found.pixels, held.transpose(2, 0, 1))


def test_tiff_files_of_16_bits_keep_their_upper_levels():
    held = images(1, 5, "<u2")[0] * 257
    found = decode(tiff(held), Shaping(channels=5))
    np.testing.assert_array_equal(found.pixels, (held // 257).transpose(2, 0, 1))


def test_a_folder_of_tiff_files_of_five_channels_leaves_others_out(tmp_path: Path):
    for i, held in enumerate(images(4, 5)):
        (tmp_path / f"{i}.tif").write_bytes(tiff(held))
    (tmp_path / "4.tif").write_bytes(tiff(images(1, 3)[0]))
    (tmp_path / "5.tif").write_bytes(tiff(images(1, 5)[0])[:180])
    (tmp_path / "6.png").write_bytes(png(images(1, 3)[0]))
    found = Folder(tmp_path, channels=5, image_size=None, cache_dir=tmp_path / "kept").read()
    assert found.image_shape == (5, 6, 7)
    reasons = {Path(name).name: reason for name, reason in found.skipped}
    assert "it has 3 channels, and data.channels=5 is asked for" in reasons["4.tif"]
    assert "truncated" in reasons["5.tif"]
    assert "3 channels of the kind RGB" in reasons["6.png"]


def test_channels_last_are_named_where_a_set_is_made_by_hand():
    with pytest.raises(ValueError, match=r"x.transpose\(0, 3, 1, 2\)"):
        ImageSet(images(2, 3))
    assert ImageSet(images(2, 5).transpose(0, 3, 1, 2)).image_shape == (5, 6, 7)


def test_other_channels_stand_side_by_side_in_grey():
    held = torch.from_numpy(images(2, 5).transpose(0, 3, 1, 2).copy())
    seen = side_by_side(held)
    assert seen.shape == (2, 1, 6, 5 * 8 - 1)
    for channel in range(5):
        assert torch.equal(seen[:, 0, :, 8 * channel : 8 * channel + 7], held[:, channel])
    assert (seen[..., 7::8] == BETWEEN_CHANNELS).all()
    assert torch.equal(side_by_side(held[:, :3]), held[:, :3])
    assert enlarged(held).shape == (2, 6 * 9, 39 * 9, 3)
    assert "0 to 4" in channels_said((5, 6, 7))
    assert channels_said((3, 6, 7)) == ""


def test_extractors_of_colours_refuse_other_channels_by_name():
    with pytest.raises(UsageError, match=r"extractor=inception: looks at images of 1 or 3 channels.* have 5"):
        Inception().check(5)
    Pixels().check(5)


def test_other_compressions_are_left_to_tifffile(monkeypatch: pytest.MonkeyPatch):
    """Pages of one channel, as it gives them: the channels come first."""
    held = images(1, 5)[0]
    first, *others = [Image.fromarray(held[:, :, i]) for i in range(5)]
    written = io.BytesIO()
    first.save(written, "tiff", save_all=True, append_images=others, compression="tiff_lzw")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        ValueError, match="compressed, by other than Deflate; pip install tifffile imagecodecs"
    ):
        channels_of(written.getvalue(), 5)
    stub = SimpleNamespace(imread=lambda source: np.moveaxis(held, 2, 0))
    monkeypatch.setitem(sys.modules, "tifffile", stub)
    assert np.array_equal(channels_of(written.getvalue(), 5), held)
