"""Which files hold arrays, what their arrays are called, and archives of them."""

import logging
import tarfile
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from data.arrays import written

from ddpm.data.arrays.files import Contents, contents
from ddpm.data.arrays.held import Workspace


def read(path: Path) -> Contents:
    with TemporaryDirectory() as work, ExitStack() as stack:
        return contents(path, Workspace(Path(work), stack))


def names(path: Path) -> list[str]:
    return [one.name for one in read(path).arrays]


def test_names(tmp_path: Path):
    array = np.zeros((2, 3, 4))
    (tmp_path / "one" / "deep").mkdir(parents=True)
    np.savez(tmp_path / "one" / "deep" / "set.npz", x=array, y=array)
    (tmp_path / "one" / "README").write_text("words")
    assert names(tmp_path / "one") == ["x", "y"]
    assert names(tmp_path / "one" / "deep" / "set.npz") == ["x", "y"]


def test_names_of_several_files(tmp_path: Path):
    array = np.zeros((2, 3, 4))
    folder = tmp_path / "set" / "inner"
    folder.mkdir(parents=True)
    np.savez(folder / "b_10.npz", x=array)
    np.savez(folder / "b_9.npz", x=array)
    np.save(folder / "test-x.npy", array)
    written.idx(folder / "t10k-images-idx3-ubyte.gz", array)
    (folder / ".hidden.npz").write_bytes(b"damaged")
    assert names(tmp_path / "set") == ["b_9/x", "b_10/x", "t10k-images-idx3-ubyte", "test-x"]


def test_the_same_file_packed_and_not(tmp_path: Path):
    for end in ("", ".gz"):
        written.idx(tmp_path / f"train-labels-idx1-ubyte{end}", np.arange(3))
    found = read(tmp_path)
    assert [one.name for one in found.arrays] == ["train-labels-idx1-ubyte"]
    assert found.left_out == [
        ("train-labels-idx1-ubyte.gz", "another file holds train-labels-idx1-ubyte already")
    ]


@pytest.mark.parametrize(
    "name", ["a.npz", "a.npy", "a.mat", "a.h5", "train-images-idx3-ubyte.gz", "test_batch"]
)
@pytest.mark.parametrize("contents_", [b"", b"words"])
def test_a_name_that_says_what_is_not_there(tmp_path: Path, name: str, contents_: bytes):
    """Else a set would be read without a part of it."""
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 4)))
    (tmp_path / name).write_bytes(contents_)
    with pytest.raises(ValueError, match=rf"^{name} could not be read"):
        read(tmp_path)


@pytest.mark.parametrize("end", ["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"])
def test_archives_cut_anywhere(tmp_path: Path, end: str):
    folder = written.npy_folder(tmp_path / "a", written.both(8))
    path = written.zipped(folder) if end == "zip" else written.tarred(folder, end)
    assert sorted(name.split("/")[-1] for name in names(path)) == ["x_test", "x_train", "y_test", "y_train"]
    whole = path.read_bytes()
    data_end = len(whole) if end != "tar" else len(whole.rstrip(b"\0"))
    for size in np.random.RandomState(0).randint(600, data_end, 12):
        cut = tmp_path / f"cut_{size}.{end}"
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="could not be read as an archive"):
            read(cut)


def test_a_member_after_damage_is_not_lost_in_silence(tmp_path: Path):
    path = written.tarred(written.npy_folder(tmp_path / "a", written.both(8)), "tar")
    whole = bytearray(path.read_bytes())
    second = whole.index(b"a/x_train.npy")
    whole[second : second + 20] = b"\xff" * 20
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"a\.tar could not be read as an archive"):
        read(path)


def test_links_in_archives(tmp_path: Path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("x.npy")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert read(tmp_path / "a.tar").left_out == [("x.npy", "a link or a device, not a file")]


def test_what_a_library_warns_of_is_not_shown(tmp_path: Path, recwarn: pytest.WarningsRecorder):
    written.svhn(tmp_path / "svhn", written.both())
    logging.captureWarnings(False)
    read(tmp_path / "svhn")
    assert not recwarn.list
