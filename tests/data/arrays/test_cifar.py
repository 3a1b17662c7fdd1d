"""Pickles are read without running what they name."""

import pickle
import struct
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddpm.data.arrays.cifar import ADMITTED, batch, binary
from ddpm.data.arrays.held import Workspace

VALUES: dict[str, Any] = {
    "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big": np.arange(6, dtype=">i4"),
    "float": np.arange(6, dtype=np.float32),
    "bool": np.arange(6) % 2 == 0,
    "strings": np.array(["a", "图"]),
    "turned": np.arange(24).reshape(2, 3, 4).T,
    "numbers": [3, 1, 2],
    "scalars": [np.int64(3), np.int32(1)],
    "words": ["a", "图"],
    "byte words": [b"a", b"b"],
    "floats": [0.5, 1],
    "empty": np.zeros((0, 3), np.uint8),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key", VALUES)
def test_plain_values(key: str, protocol: int):
    (held,) = batch(pickle.dumps({key: VALUES[key], "left": {"a": 1}, 3: 4, "none": None}, protocol), "p/")
    expected = [one.decode() for one in VALUES[key]] if key == "byte words" else VALUES[key]
    assert held.name == f"p/{key}"
    np.testing.assert_array_equal(held.read(), np.array(expected))


def test_a_batch_as_python_2_wrote_it():
    """By hand: protocol 2, where strings are bytes, as in the published files."""
    array = np.arange(6, dtype=np.uint8)
    contents = (
        b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x06K\x09eU\x04dataq\x04"
        b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85U\x01b\x87Rq\x07"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x06" + array.tobytes() + b"tbu."
    )
    labels, data = batch(contents, "")
    assert (labels.name, labels.read().tolist()) == ("labels", [6, 9])
    np.testing.assert_array_equal(data.read(), array.reshape(2, 3))


def test_what_stands_for_what_a_pickle_names_is_ours():
    assert all(value.__module__ == "ddpm.data.arrays.cifar" for value in ADMITTED.values())


@pytest.mark.parametrize(
    "contents",
    [
        b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.",
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cbuiltins\neval\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02}X\x01\0\0\0aC\x01ar" + struct.pack("<I", 2**32 - 1) + b"s.",  # room for 2**32 results
        b"\x80\x02\x82\x01.",
        b"\x80\x02K\x01.",
        b"\x80\x02].",
        b"\x80\x05\x95" + b"\xff" * 8,
        b"\x80\x02cnumpy\ndtype\nX\x01\0\0\0O\x85R}b.",
        b"\x80\x02cnumpy\nndarray\n\x8a\x08" + b"\x7f" * 8 + b"\x85R.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0hex\x86R.",
    ],
)
def test_what_is_refused(contents: bytes):
    with pytest.raises(Exception, match=r".") as raised:
        batch(contents, "")
    assert not isinstance(raised.value, MemoryError)


@pytest.mark.parametrize("array", [np.array([1, "a"], object), np.zeros(3, "M8[s]"), np.zeros(3, "i4,f4")])
def test_arrays_of_other_things(array: np.ndarray):
    with pytest.raises(Exception, match=r"array of|names"):
        batch(pickle.dumps({"a": array}, 4), "")


def test_an_array_that_promises_more_than_it_holds():
    contents = pickle.dumps({"a": np.zeros((20, 30), np.uint8)}, 2)
    assert b"K\x14K\x1e\x86" in contents
    with pytest.raises(ValueError, match="reshape"):
        batch(contents.replace(b"K\x14K\x1e\x86", b"K\x15K\x1e\x86"), "")


def test_a_binary_batch_cut_short(tmp_path: Path):
    path = tmp_path / "data_batch_1.bin"
    for size in (0, 3072, 3074, 2 * 3073 - 1):
        path.write_bytes(bytes(size))
        with (
            ExitStack() as stack,
            pytest.raises(ValueError, match=rf"its {size:,} bytes are no whole number"),
        ):
            binary(path, "", Workspace(tmp_path, stack))


def test_binary_batches_of_cifar_100(tmp_path: Path):
    rows = np.random.RandomState(0).randint(0, 256, (2500, 3074)).astype(np.uint8)
    (tmp_path / "train.bin").write_bytes(rows.tobytes())
    with ExitStack() as stack:
        data, coarse, fine = binary(tmp_path / "train.bin", "", Workspace(tmp_path, stack))
        assert (data.name, coarse.name, fine.name) == ("data", "coarse_labels", "fine_labels")
        np.testing.assert_array_equal(data.read(), rows[:, 2:])
        np.testing.assert_array_equal(data.part(7, 9), rows[7:9, 2:])
        np.testing.assert_array_equal(coarse.read(), rows[:, 0])
        np.testing.assert_array_equal(fine.read(), rows[:, 1])
