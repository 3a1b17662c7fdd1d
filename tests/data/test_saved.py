"""Images that any program has saved are read as they are, from whatever they are kept in."""

import gzip
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data import bounds
from ddpm.data.pixels.decoding import Decoded
from ddpm.data.saved import Saved, saved_at

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), np.uint8)
"""uint8 [N, H, W, C]."""

LABELS = np.array([3, 0, 2, 2, 1])


def pixels(saved: Saved) -> np.ndarray:
    """All images, uint8 [N, C, H, W], read in two parts."""
    with saved.opened() as read:
        found = [*read(range(2, saved.n)), *read(range(2))]
    assert all(isinstance(one, Decoded) for one in found), found
    images = [one.pixels for one in found if isinstance(one, Decoded)]
    return np.stack([*images[saved.n - 2 :], *images[: saved.n - 2]])


def pictures(path: Path) -> Path:
    path.mkdir()
    (path / "sub").mkdir()
    for index, image in enumerate(IMAGES):
        name = f"sub/{index:06d}_cat.png" if index == 4 else f"{index:06d}_cat.png"
        Image.fromarray(image).save(path / name)
    (path / "notes.txt").write_text("made by somebody")
    return path


def arrays_of_one(path: Path) -> Path:
    path.mkdir()
    for index, image in enumerate(IMAGES):
        np.save(path / f"{index}.npy", image)
    return path


def sampled(path: Path) -> Path:
    """The folder of sample.py, whose grid is none of the samples."""
    path.mkdir()
    np.savez(path / "samples.npz", arr_0=IMAGES, arr_1=LABELS)
    Image.new("RGB", (30, 30)).save(path / "grid.png")
    return path


def npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), arr_0=IMAGES, arr_1=LABELS)
    return path.with_suffix(".npz")


def packed(path: Path) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), other=np.zeros(3), images=IMAGES, label=LABELS)
    return path.with_suffix(".npz")


def npy(path: Path) -> Path:
    np.save(path.with_suffix(".npy"), IMAGES)
    return path.with_suffix(".npy")


def channels_first(path: Path) -> Path:
    np.save(path.with_suffix(".npy"), IMAGES.transpose(0, 3, 1, 2).copy())
    return path.with_suffix(".npy")


def zipped(path: Path) -> Path:
    return Path(shutil.make_archive(str(path), "zip", pictures(path)))


def tarred(path: Path) -> Path:
    """In another order than that of the names."""
    names = [str(file.relative_to(path)) for file in sorted(pictures(path).rglob("*")) if file.is_file()]
    with tarfile.open(path.with_suffix(".tar"), "w") as archive:
        for name in reversed(names):
            archive.add(path / name, f"./{name}")
    return path.with_suffix(".tar")


@pytest.mark.parametrize(
    "kept",
    [pictures, zipped, tarred, arrays_of_one, sampled, npz, packed, npy, channels_first],
)
def test_the_same_images_are_read_from_each_kind(kept: Callable[[Path], Path], tmp_path: Path):
    saved = saved_at(kept(tmp_path / "kept"))
    assert saved.n == 5
    assert np.array_equal(pixels(saved), IMAGES.transpose(0, 3, 1, 2))
    labels = saved.labels()
    if kept in (sampled, npz, packed):
        assert labels is not None
        assert labels.tolist() == LABELS.tolist()
    else:
        assert labels is None


def test_an_array_of_grey_images_needs_no_channels(tmp_path: Path):
    np.save(tmp_path / "grey.npy", IMAGES[..., 0])
    assert np.array_equal(pixels(saved_at(tmp_path / "grey.npy")), IMAGES[:, None, :, :, 0])


def test_a_damaged_image_is_given_as_the_reason(tmp_path: Path):
    saved = saved_at(pictures(tmp_path / "kept"))
    broken = tmp_path / "kept" / "000001_cat.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with saved.opened() as read:
        found = list(read(range(3)))
    assert [isinstance(one, str) for one in found] == [False, True, False]
    assert saved.name(1) == str(broken)


def test_a_compressed_tar_file_is_read_as_it_lies(tmp_path: Path):
    """Since every step back begins anew: once each, however many there are."""
    plain = tarred(tmp_path / "kept")
    packed = plain.with_suffix(".tar.gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    saved = saved_at(packed)
    assert np.array_equal(pixels(saved), IMAGES[::-1].transpose(0, 3, 1, 2))
    assert saved.name(0) == f"{packed}/sub/000004_cat.png"
    assert saved_at(plain).name(0) == f"{plain}/000000_cat.png"


def test_a_member_that_is_no_image_is_given_as_the_reason(tmp_path: Path):
    outside, (image, *_) = tmp_path / "outside.png", sorted(pictures(tmp_path / "kept").glob("*.png"))
    image.rename(outside)
    with tarfile.open(tmp_path / "kept.tar", "w") as archive:
        archive.add(tmp_path / "kept" / "000001_cat.png", "b.png")
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        archive.addfile(link)
        archive.add(outside, "../c.png")
    saved = saved_at(tmp_path / "kept.tar")
    with saved.opened() as read:
        found = {Path(saved.name(i)).name: one for i, one in enumerate(read(range(saved.n)))}
    assert found["a.png"] == "a link or a device, not a file"
    assert found["c.png"] == "its name leads out of the archive"
    assert isinstance(found["b.png"], Decoded)


def test_an_array_that_was_damaged_is_given_as_the_reason(tmp_path: Path):
    """Where the middle is damaged, the last image tells: a checksum is of the whole."""
    path = tmp_path / "large.npz"
    np.savez(path, arr_0=np.zeros((64, 32, 32, 3), np.uint8))
    contents = bytearray(path.read_bytes())
    contents[100_000] ^= 255
    path.write_bytes(bytes(contents))
    saved = saved_at(path)
    with saved.opened() as read:
        found = list(read(range(64)))
    assert isinstance(found[-1], str)
    assert "CRC" in found[-1]


BAD = {
    "floats": r"holds arr_0 float64 \[5, 4, 6, 3\], no images; .*uint8 \[N, H, W, C\]",
    "two": r"more than one array of images, a uint8 .*; call one arr_0",
    "cut": r"could not be read as npz .*; save it anew",
    "objects": r"could not be read as npz .*pickled",
    "empty": r"holds no files; a folder, zip or tar file of pictures, or an npz or npy file",
    "texts": r"holds no pictures, only a\.txt; a folder, zip or tar file of pictures",
    "picture": r"of a single picture name its folder",
    "archive": r"^it is no zip or tar file, or damaged .*; pack it again",
    "7z": r"^it is a 7z file, .* unpack it into a folder by `7z x .*\.7z`, and use samples=FOLDER",
    "bomb": r"^it unpacks to more than \d+ times its size .* use samples=FOLDER",
    "no pictures": r"holds no pictures, only a\.txt; a folder, zip or tar file of pictures",
}


def bad(kind: str, path: Path) -> Path:
    if kind in ("empty", "texts"):
        path.mkdir()
        if kind == "texts":
            (path / "a.txt").write_text("x")
        return path
    if kind == "7z":
        path.with_suffix(".7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(40))
        return path.with_suffix(".7z")
    if kind in ("archive", "bomb", "no pictures"):
        with zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png" if kind == "bomb" else "a.txt", bytes(100_000))
        if kind == "archive":
            path.with_suffix(".zip").write_bytes(path.with_suffix(".zip").read_bytes()[:60])
        return path.with_suffix(".zip")
    if kind == "picture":
        Image.new("L", (8, 8)).save(path.with_suffix(".png"))
        return path.with_suffix(".png")
    arrays = {
        "floats": {"arr_0": IMAGES / 255.0},
        "two": {"a": IMAGES, "b": IMAGES},
        "cut": {"arr_0": IMAGES},
        "objects": {"arr_0": np.array([None, 1])},
    }
    file = path.with_suffix(".npz")
    np.savez(file, **arrays[kind])
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:200])
    return file


@pytest.mark.parametrize("kind", BAD)
def test_what_holds_no_images_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if kind == "bomb":
        monkeypatch.setattr(bounds, "MOST_BYTES", 99_999)
        monkeypatch.setattr(bounds, "MOST_TIMES", 100)
    with pytest.raises(ValueError, match=BAD[kind]):
        saved_at(bad(kind, tmp_path / "kept"))
