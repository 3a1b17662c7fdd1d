"""HDF5: what is in a file is read, what it points at elsewhere is not."""

from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from data.arrays import written

from ddpm.data import bounds
from ddpm.data.arrays import held
from ddpm.data.arrays.hdf5 import hdf5, matlab
from ddpm.data.arrays.held import Workspace


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(held, "BLOCK", 100)
    with ExitStack() as stack:
        yield Workspace(tmp_path, stack)


def test_data_sets_in_groups(tmp_path: Path, opened: Workspace):
    array = np.arange(120).reshape(6, 4, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a/b/x", data=array, chunks=(2, 4, 5), compression="gzip")
        file["flags"] = np.array([True, False])
        file["words"] = ["a", "图"]
        file["fixed"] = np.array([b"a", b"b"])
        file["nothing"] = h5py.Empty("f4")
        file["one"] = 3
        file["references"] = np.array([file.ref], h5py.ref_dtype)
        file["mixed"] = np.zeros(2, "i4,f4")
    found = {one.name: one for one in hdf5(tmp_path / "a.h5", "p/", opened)}
    assert sorted(found) == ["p/a/b/x", "p/fixed", "p/flags", "p/mixed", "p/one", "p/words"]
    assert [block.shape for _, block in found["p/a/b/x"].blocks(0)] == [(1, 4, 5)] * 6
    np.testing.assert_array_equal(found["p/a/b/x"].read(), array)
    np.testing.assert_array_equal([block for _, block in found["p/a/b/x"].blocks(-1)][3], array[None, ..., 3])
    assert found["p/flags"].dtype == np.bool_
    assert found["p/words"].read().tolist() == ["a", "图"]
    assert found["p/words"].dtype.kind == "U"
    assert found["p/fixed"].read().tolist() == [b"a", b"b"]


def test_nothing_of_other_files(tmp_path: Path, opened: Workspace):
    (tmp_path / "secret").write_bytes(bytes(100))
    written.hdf5(tmp_path / "other.h5", x=np.zeros((3, 4, 5)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        file.create_dataset("raw", (10,), "u1", external=[(str(tmp_path / "secret"), 0, 10)])
        virtual = h5py.VirtualLayout((3, 4, 5), "f8")
        virtual[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (3, 4, 5))
        file.create_virtual_dataset("virtual", virtual)
        file["own"] = np.arange(3)
    assert [one.name for one in hdf5(tmp_path / "a.h5", "", opened)] == ["own"]


def test_matlabs_order(tmp_path: Path, opened: Workspace):
    array = np.arange(2 * 3 * 4 * 50, dtype=np.uint8).reshape(2, 3, 4, 50)
    path = written.matlab73(tmp_path / "a.mat", X=array)
    with h5py.File(path, "r+") as file:
        file["on"] = np.array([[1, 0]], np.uint8)
        file["on"].attrs["MATLAB_class"] = np.bytes_("logical")
        file["text"] = np.array([[97]], np.uint16)
        file["text"].attrs["MATLAB_class"] = np.bytes_("char")
        file["#refs#/a"] = np.arange(3)
    found = {one.name: one for one in matlab(path, "", opened)}
    assert sorted(found) == ["X", "on"]
    np.testing.assert_array_equal(found["X"].read(), array)
    blocks = [block for _, block in found["X"].blocks(-1)]
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), np.moveaxis(array, -1, 0))
    np.testing.assert_array_equal(found["on"].read(), [[True], [False]])


def test_strings_that_are_the_same_bytes(tmp_path: Path, opened: Workspace, monkeypatch: pytest.MonkeyPatch):
    words = written.hdf5(tmp_path / "a.h5", y=["a" * 1000] * 300)
    (found,) = hdf5(words, "", opened)
    assert found.read().tolist() == ["a" * 1000] * 300
    monkeypatch.setattr(bounds, "MOST_BYTES", 1000)
    monkeypatch.setattr(bounds, "MOST_TIMES", 2)
    with pytest.raises(ValueError, match="it would unpack"):
        found.read()
