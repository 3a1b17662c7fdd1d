"""NumPy's files, in whichever order and version they are kept."""

import io
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from ddpm.data.arrays import held
from ddpm.data.arrays.held import Held, Workspace
from ddpm.data.arrays.npz import npy, npz

ARRAYS = {
    "c": np.arange(120).reshape(6, 4, 5),
    "fortran": np.asfortranarray(np.arange(120).reshape(6, 4, 5)),
    "big": np.arange(120, dtype=">f4").reshape(6, 4, 5),
    "line": np.arange(6),
    "scalar": np.array(3.5),
    "words": np.array(["a", "图"]),
}


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(held, "BLOCK", 100)
    with ExitStack() as stack:
        yield Workspace(tmp_path, stack)


def check(found: Held, array: np.ndarray) -> None:
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(found.read(), array)
    for axis in (0, -1) if array.ndim > 1 else ():
        blocks = list(found.blocks(axis))
        assert len(blocks) > 1
        np.testing.assert_array_equal(
            np.concatenate([block for _, block in blocks]), np.moveaxis(array, axis, 0)
        )
        assert [first for first, _ in blocks] == np.cumsum([0, *(len(block) for _, block in blocks)])[
            :-1
        ].tolist()


@pytest.mark.parametrize("name", ARRAYS)
def test_npy(name: str, tmp_path: Path, opened: Workspace):
    np.save(tmp_path / "a.npy", ARRAYS[name])
    (found,) = npy(tmp_path / "a.npy", "a", opened)
    check(found, ARRAYS[name])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path: Path, opened: Workspace, save: Callable[..., None]):
    save(tmp_path / "a.npz", **ARRAYS)
    found = npz(tmp_path / "a.npz", "p/", opened)
    assert [one.name for one in found] == [f"p/{name}" for name in ARRAYS]
    for one in (*found, *found[::-1]):  # back to the beginning too
        check(one, ARRAYS[one.name.removeprefix("p/")])


def header(shape: object, descr: str = "|u1") -> bytes:
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": descr, "fortran_order": False, "shape": shape})
    return written.getvalue()


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (
            header((10**9, 64, 64, 3)) + b"123",
            r"a is cut short: 12,288,000,000,128 bytes are expected, 131 are",
        ),
        (header((-1, 5)), r"a is cut short|cut"),
        (header((2,), "|O") + bytes(16), r"a holds pickled objects, which could run any code"),
        (header((2,)).replace(b"NUMPY\x01", b"NUMPY\x03"), r"a is of version 3\.0"),
        (header((2,))[:20], r"."),
    ],
)
def test_damage(tmp_path: Path, opened: Workspace, contents: bytes, said: str):
    (tmp_path / "a.npy").write_bytes(contents)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", contents)
    with pytest.raises(ValueError, match=said):
        npy(tmp_path / "a.npy", "a", opened)
    with pytest.raises(ValueError, match=said):
        npz(tmp_path / "a.npz", "", opened)
