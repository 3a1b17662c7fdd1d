import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ddpm.data.sources.npz import Npz


def colours(n: int = 20) -> np.ndarray:
    """Images [n, 4, 5, 3] whose first value tells which one it is."""
    images = np.random.RandomState(0).randint(0, 256, (n, 4, 5, 3)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return images


def test_images_and_labels(tmp_path: Path):
    images = colours()
    np.savez(tmp_path / "a.npz", notes=np.zeros(3), arr_0=images, arr_1=np.arange(20) % 3 + 5)
    data_set = Npz(tmp_path / "a.npz", validation_fraction=0.2).read()
    assert (len(data_set.train), len(data_set.validation)) == (16, 4)
    assert data_set.classes == ["5", "6", "7"]
    for part in (data_set.train, data_set.validation):
        for image, label in zip(part.images, part.labels, strict=True):
            np.testing.assert_array_equal(image, images[image[0, 0, 0]].transpose(2, 0, 1))
            assert label == image[0, 0, 0] % 3


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("shape", [(6, 4, 5), (6, 4, 5, 1)])
def test_grey(tmp_path: Path, shape: tuple[int, ...], save: object):
    save(tmp_path / "a.npz", images=np.arange(120, dtype=np.uint8).reshape(shape))
    data = Npz(tmp_path / "a.npz", validation_fraction=0)
    assert data.read().train.image_shape == (1, 4, 5)
    assert data.read().classes is None
    assert sorted(data.read().train.images.ravel().tolist()) == list(range(120))


def test_arrays_can_be_named(tmp_path: Path):
    images = colours(4)
    np.savez(tmp_path / "a.npz", a=images, b=images + 100, c=np.arange(4), d=np.array([7, 7, 8, 8]))
    data_set = Npz(tmp_path / "a.npz", image_key="b", label_key="d", validation_fraction=0).read()
    assert data_set.train.images.min() >= 0
    assert sorted(data_set.train.images[:, 0, 0, 0].tolist()) == [100, 101, 102, 103]
    assert data_set.classes == ["7", "8"]
    for settings, message in (
        ({"image_key": "c"}, r"data\.image_key=c: .*a\.npz has no such array of images, .*c int64 \[4\]"),
        (
            {"label_key": "a"},
            r"data\.label_key=a: .*a\.npz has no such array of labels.*a uint8 \[4, 4, 5, 3\]",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            Npz(tmp_path / "a.npz", **settings).read()


@pytest.mark.parametrize(
    "array",
    [
        colours().astype(np.float32) / 255,
        colours()[0, 0],
        colours()[None],
        colours().transpose(0, 3, 1, 2),
        colours()[:0],
        np.concatenate([colours(), colours()[..., :1]], axis=-1),
    ],
    ids=["floats", "rank 2", "rank 5", "NCHW", "none", "four channels"],
)
def test_arrays_that_are_no_images(tmp_path: Path, array: np.ndarray):
    np.savez(tmp_path / "a.npz", x=array)
    with pytest.raises(ValueError, match=r"data\.image_key=null: .*a\.npz has no such array of images.*x "):
        Npz(tmp_path / "a.npz").read()


def test_pickled_objects_are_never_loaded(tmp_path: Path):
    class Trap:
        def __reduce__(self) -> tuple:
            return (tmp_path / "sprung").touch, ()

    np.savez(tmp_path / "a.npz", images=colours(), x=np.array([Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"data\.path=.*a\.npz holds pickled objects.*not read"):
        Npz(tmp_path / "a.npz").read()
    assert not (tmp_path / "sprung").exists()


def test_damaged_files(tmp_path: Path):
    buffer = io.BytesIO()
    np.savez(buffer, images=colours())
    whole = buffer.getvalue()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 64, 64, 3)}
    )
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue() + b"123")
    for name, contents in (("cut", whole[:-50]), ("words", b"words"), ("empty", b"")):
        (tmp_path / f"{name}.npz").write_bytes(contents)
    for name in ("cut", "words", "empty", "huge"):
        with pytest.raises(ValueError, match=rf"data\.path=.*{name}\.npz could not be read as npz"):
            Npz(tmp_path / f"{name}.npz").read()


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    np.savez(tmp_path / "a.npz", images=colours())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(Npz("~/a.npz", validation_fraction=0).read().train) == 20
    with pytest.raises(ValueError, match=r"data\.path=.*b\.npz: there is no such file"):
        Npz(tmp_path / "b.npz").read()
    with pytest.raises(ValueError, match=r"data\.path=.* is a folder"):
        Npz(tmp_path).read()


def test_a_changed_file_is_read_again(tmp_path: Path):
    np.savez(tmp_path / "a.npz", images=colours(4))
    before = Npz(tmp_path / "a.npz").read().fingerprint
    np.savez(tmp_path / "a.npz", images=colours(5))
    assert Npz(tmp_path / "a.npz").read().fingerprint != before
