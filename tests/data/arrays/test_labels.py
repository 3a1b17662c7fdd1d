"""Labels of every kind, and the names of their classes."""

import numpy as np
import pytest

from ddpm.data.arrays.held import in_memory
from ddpm.data.arrays.labels import numbered, values_of

NUMBERS = np.array([3, 0, 2, 3])


@pytest.mark.parametrize(
    "array",
    [
        *(NUMBERS.astype(kind) for kind in ("u1", "i1", ">i2", "i4", "i8", "u8", "f2", "f4", "f8")),
        NUMBERS[:, None],
        NUMBERS[None],
        NUMBERS[:, None, None, None],
        np.eye(4)[NUMBERS],
        np.eye(4, dtype=bool)[NUMBERS],
    ],
)
def test_numbers(array: np.ndarray):
    values = values_of(in_memory("y", array))
    assert values.dtype == np.int64
    assert values.tolist() == NUMBERS.tolist()


@pytest.mark.parametrize(
    "words",
    [
        np.array(["a ", "图"]),
        np.array([["a"], ["图"]]),
        np.array(["a", "图"], object),
        np.array([b"a", "图".encode()]),
    ],
)
def test_words(words: np.ndarray):
    assert values_of(in_memory("y", words)).tolist() == ["a", "图"]


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS - 1, NUMBERS + 0.5, np.array([np.nan]), np.array([np.inf]), np.array([1e300]), NUMBERS * 1j,
        np.array([2**64 - 1], np.uint64), np.zeros((4, 3)), np.ones((4, 3)), np.array([[2, 1, 1], [0, 1, 0]]),
        np.array([["a", "b"], ["c", "d"]]), NUMBERS.astype("M8[s]"),
    ],
)  # fmt: skip
def test_what_is_none(array: np.ndarray):
    with pytest.raises(ValueError, match=r"\by\b"):
        values_of(in_memory("y", array))


def test_classes_are_those_that_occur_in_natural_order():
    assert numbered([np.array([10, 2]), np.array([1])], [])[1:] == (["1", "2", "10"], None)
    labels, classes, _ = numbered([np.array(["b10", "b2", "a"])], [])
    assert (labels.tolist(), classes) == ([2, 1, 0], ["a", "b2", "b10"])


@pytest.mark.parametrize(
    ("values", "names", "expected"),
    [
        ([0, 2, 1], ["a", "b", "c"], ([0, 2, 1], ["a", "b", "c"], "names")),
        ([0, 1], ["a", "b", "c"], ([0, 1], ["a", "b", "c"], "names")),
        ([1, 3, 2], ["a", "b", "c"], ([0, 2, 1], ["a", "b", "c"], "names")),
        ([1, 2], ["a", "b", "c"], ([1, 2], ["a", "b", "c"], "names")),
        ([0, 3], ["a", "b", "c"], ([0, 1], ["0", "3"], None)),
        ([2, 4], ["a", "b", "c"], ([0, 1], ["2", "4"], None)),
        ([0, 1], ["a", "a"], ([0, 1], ["0", "1"], None)),
    ],
)
def test_names_of_classes(values: list[int], names: list[str], expected: tuple[object, ...]):
    labels, classes, said_by = numbered([np.array(values)], [("names", names)])
    assert (labels.tolist(), classes, said_by) == expected
