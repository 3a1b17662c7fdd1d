"""MATLAB's files: numbers and words, in structs too; damage ends the reader, not the program."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ddpm.data.arrays.held import Workspace
from ddpm.data.arrays.mat import mat


@pytest.fixture
def opened(tmp_path: Path) -> Workspace:
    (tmp_path / "work").mkdir()
    with ExitStack() as stack:
        yield Workspace(tmp_path / "work", stack)


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_read(tmp_path: Path, opened: Workspace, compressed: bool):
    image = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    scipy.io.savemat(tmp_path / "a.mat", {
        "X": image, "whole": np.arange(3.0), "on": np.array([True, False]), "i": np.arange(3, dtype=np.int16),
        "data": {"train": {"images": image, "n": 3}, "names": np.array(["a", "图"], object)},
        "mixed": np.array([1, "a"], object), "letters": ["ab", "c"],
        "structs": np.array([(1, 2), (3, 4)], [("a", "O"), ("b", "O")]),
    }, do_compression=compressed)  # fmt: skip
    found = {one.name: one for one in mat(tmp_path / "a.mat", "p/", opened)}
    assert {name: (one.dtype.kind, one.shape) for name, one in found.items()} == {
        "p/X": ("u", (2, 3, 4)), "p/whole": ("f", (1, 3)), "p/on": ("b", (1, 2)), "p/i": ("i", (1, 3)),
        "p/data/train/images": ("u", (2, 3, 4)), "p/data/train/n": ("i", (1, 1)), "p/data/names": ("U", (2,)),
        "p/letters": ("U", (2,)),
    }  # fmt: skip
    np.testing.assert_array_equal(found["p/X"].read(), image)
    assert found["p/data/names"].read().tolist() == ["a", "图"]
    assert found["p/letters"].read().tolist() == ["ab", "c"]


def test_version_4(tmp_path: Path, opened: Workspace):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.arange(12.0).reshape(3, 4)}, format="4")
    (found,) = mat(tmp_path / "a.mat", "", opened)
    np.testing.assert_array_equal(found.read(), np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_file_cut_short(tmp_path: Path, opened: Workspace, share: float):
    file = tmp_path / "a.mat"
    scipy.io.savemat(file, {"x": np.arange(300.0)})
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match="could not read bytes"):  # in SciPy's words
        mat(file, "", opened)


def test_a_reader_that_is_killed(tmp_path: Path, opened: Workspace, monkeypatch: pytest.MonkeyPatch):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.arange(3)})
    (tmp_path / "crash.py").write_text("import os; os.kill(os.getpid(), 11)")
    monkeypatch.setattr("ddpm.data.arrays.mat.READER", tmp_path / "crash.py")
    with pytest.raises(ValueError, match="it is damaged, and SciPy crashed at it"):
        mat(tmp_path / "a.mat", "", opened)


def test_what_a_damaged_file_promises_is_not_believed(tmp_path: Path, opened: Workspace):
    scipy.io.savemat(tmp_path / "a.mat", {"s": np.zeros((7, 11), [("a", "O"), ("b", "O")])})
    whole = (tmp_path / "a.mat").read_bytes()
    sizes = np.array([7, 11], "<i4").tobytes()
    assert whole.count(sizes) == 1
    (tmp_path / "a.mat").write_bytes(whole.replace(sizes, np.array([7 << 20, 110], "<i4").tobytes()))
    with pytest.raises(ValueError, match=r"[Uu]nable to allocate"):
        mat(tmp_path / "a.mat", "", opened)


def test_a_reader_that_comes_to_no_end_is_stopped(
    tmp_path: Path, opened: Workspace, monkeypatch: pytest.MonkeyPatch
):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.arange(3)})
    (tmp_path / "waits.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("ddpm.data.arrays.mat.READER", tmp_path / "waits.py")
    monkeypatch.setattr("ddpm.data.arrays.mat.TO_BEGIN", 1.0)
    with pytest.raises(ValueError, match="SciPy has not read it within 1 s, and is stopped"):
        mat(tmp_path / "a.mat", "", opened)
