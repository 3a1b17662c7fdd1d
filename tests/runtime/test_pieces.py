"""Results in pieces: each index once, whatever was kept before and in pieces of whatever size."""

import random
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm.runtime.pieces import Pieces, write_npz


def arrays(indices: range) -> dict[str, np.ndarray]:
    """What an index stands for here."""
    numbers = np.arange(indices.start, indices.stop)
    return {"number": numbers, "image": np.repeat(numbers, 6).reshape(-1, 2, 3).astype(np.uint8)}


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.lists(st.integers(1, 17), min_size=1, max_size=4), st.randoms())
def test_starts_with_pieces_of_any_sizes_come_to_each_index_once(
    tmp_path_factory: pytest.TempPathFactory, n: int, sizes: list[int], chance: random.Random
):
    pieces = Pieces(tmp_path_factory.mktemp("pieces"), n)
    for size in sizes:  # each start is stopped somewhere
        missing = pieces.missing(size)
        assert all(0 < len(piece) <= size for piece in missing)
        assert not {i for piece in missing for i in piece} & {i for piece in pieces.kept() for i in piece}
        for piece in chance.sample(missing, chance.randint(0, len(missing))):
            pieces.keep(piece, arrays(piece))
    for piece in pieces.missing(sizes[-1]):
        pieces.keep(piece, arrays(piece))
    assert pieces.missing(3) == []
    found = pieces.together()
    for name, expected in arrays(range(n)).items():
        assert np.array_equal(found[name], expected)
        assert found[name].dtype == expected.dtype


def test_the_same_start_again_has_the_pieces_of_an_undisturbed_one(tmp_path: Path):
    pieces = Pieces(tmp_path, 100)
    whole = pieces.missing(16)
    for piece in (whole[2], whole[6]):
        pieces.keep(piece, arrays(piece))
    assert pieces.missing(16) == [piece for i, piece in enumerate(whole) if i not in (2, 6)]


def test_pieces_that_overlap_are_read_once(tmp_path: Path):
    """As where files of two starts were copied together."""
    pieces = Pieces(tmp_path, 10)
    for piece in (range(6), range(2, 4), range(4, 10)):
        pieces.keep(piece, arrays(piece))
    assert pieces.together()["number"].tolist() == list(range(10))


OTHERWISE: dict[str, dict[str, np.ndarray]] = {
    "rows": {"number": np.arange(4), "image": np.zeros((4, 2, 3), np.uint8)},
    "name": {"numbers": np.arange(5), "image": np.zeros((5, 2, 3), np.uint8)},
    "shape": {"number": np.arange(5), "image": np.zeros((5, 3, 2), np.uint8)},
    "type": {"number": np.arange(5), "image": np.full((5, 2, 3), 300.0)},
    "nothing": {},
}
"""What a piece may hold that can be read and is none of this work."""


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "text", "encrypted", *OTHERWISE])
def test_a_damaged_piece_is_computed_again(damage: str, tmp_path: Path):
    pieces = Pieces(tmp_path, 20)
    for piece in pieces.missing(5):
        pieces.keep(piece, arrays(piece))
    file = tmp_path / "00000005-00000010.npz"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 4
    elif damage == "truncate":
        del content[-30:]
    elif damage == "empty":
        content.clear()
    elif damage == "text":
        content[:] = b"[1, 2]"
    elif damage == "encrypted":
        content[6] |= 1  # of the first record
        content[content.index(b"PK\1\2") + 8] |= 1
    file.write_bytes(content)
    if damage in OTHERWISE:
        np.savez(file, **OTHERWISE[damage])
    (tmp_path / ".00000000-00000005.part.npz").touch()  # what a killed start left
    (tmp_path / "notes.txt").touch()
    assert pieces.drop_damaged() == [file.name]
    assert pieces.missing(5) == [range(5, 10)]
    assert not list(tmp_path.glob(".*"))
    pieces.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_array_in_parts_is_what_numpy_writes(tmp_path: Path):
    parts = [np.arange(i * 12, (i + 1) * 12, dtype=np.float32).reshape(3, 4).T for i in range(5)]
    write_npz(
        tmp_path / "ours.npz",
        {"a": ((20, 3), np.dtype(np.float32), parts), "b": ((2,), np.dtype("<U3"), [np.array(["x", "yyy"])])},
    )
    np.savez(tmp_path / "theirs.npz", a=np.ascontiguousarray(np.concatenate(parts)), b=np.array(["x", "yyy"]))
    with zipfile.ZipFile(tmp_path / "ours.npz") as ours, zipfile.ZipFile(tmp_path / "theirs.npz") as theirs:
        assert ours.namelist() == theirs.namelist()
        assert [ours.read(name) for name in ours.namelist()] == [
            theirs.read(name) for name in theirs.namelist()
        ]


def test_many_images_take_the_memory_of_a_piece(tmp_path: Path):
    pieces, shape = Pieces(tmp_path / "pieces", 64), (4, 64, 64, 3)
    for piece in pieces.missing(4):
        pieces.keep(piece, {"images": np.zeros(shape, np.uint8)})
    tracemalloc.start()
    parts = (part["images"] for part in pieces)
    write_npz(tmp_path / "all.npz", {"arr_0": ((64, 64, 64, 3), np.dtype(np.uint8), parts)})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 6 * np.prod(shape)  # of 16 pieces
    assert np.load(tmp_path / "all.npz")["arr_0"].shape == (64, 64, 64, 3)


def test_some_are_read_across_pieces_of_uneven_sizes(tmp_path: Path):
    pieces = Pieces(tmp_path, 17)
    for part in (range(3), range(3, 4), range(4, 11), range(9, 15), range(15, 17)):  # two of them overlap
        pieces.keep(part, arrays(part))
    for start in range(17):
        for stop in range(start + 1, 18):
            found = pieces.at(range(start, stop))
            for name, expected in arrays(range(start, stop)).items():
                assert np.array_equal(found[name], expected)
