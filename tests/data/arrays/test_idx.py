"""idx: every type of numbers, and files that hold fewer or more than they promise."""

import gzip
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from data.arrays.written import idx as write

from ddpm.data.arrays.held import Workspace
from ddpm.data.arrays.idx import TYPES, idx, is_idx

MNIST_HEAD = bytes.fromhex("00000803 0000ea60 0000001c 0000001c".replace(" ", ""))
"""How the published train-images-idx3-ubyte begins."""


def test_the_published_header():
    assert is_idx(MNIST_HEAD)
    assert not any(
        is_idx(head) for head in (b"", b"\0\0\x08", b"\0\0\x0a\x01", b"\0\0\x08\0", b"\0\1\x08\x01")
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_type(tmp_path: Path, kind: int, end: str):
    array = np.arange(-60, 60).reshape(6, 4, 5).astype(np.dtype(TYPES[kind]).newbyteorder("="))
    path = write(tmp_path / f"a{end}", array, kind)
    with ExitStack() as stack:
        (held,) = idx(path, "a", Workspace(tmp_path, stack), compressed=bool(end))
        assert (held.shape, held.dtype.kind) == (array.shape, array.dtype.kind)
        np.testing.assert_array_equal(held.read(), array)
        np.testing.assert_array_equal(np.concatenate([block for _, block in held.blocks(0)]), array)
        for first, last in ((4, 6), (0, 2), (3, 4)):
            np.testing.assert_array_equal(held.part(first, last), array[first:last])


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[:-1], r"136 bytes are expected( unpacked)?, 135 are there"),
        (lambda whole: whole + b"x", r"136 bytes are expected( unpacked)?, 137( or more)? are there"),
        (lambda whole: whole[:16], r"136 bytes are expected( unpacked)?, 16 are there"),
        (lambda whole: whole[:9], r"it ends within its header"),
    ],
)
def test_fewer_or_more_bytes(tmp_path: Path, end: str, change: Callable[[bytes], bytes], said: str):
    whole = change(write(tmp_path / "a", np.zeros((6, 4, 5))).read_bytes())
    (tmp_path / "b").write_bytes(gzip.compress(whole) if end else whole)
    with ExitStack() as stack, pytest.raises(ValueError, match=said):
        idx(tmp_path / "b", "b", Workspace(tmp_path, stack), compressed=bool(end))
