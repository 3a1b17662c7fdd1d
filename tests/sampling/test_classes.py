"""A class is named in any way, and a number that could mean two is refused."""

from typing import Any

import numpy as np
import pytest
import torch

from ddpm.errors import UsageError
from ddpm.sampling.classes import number_of

WORDS = ["cat", "dog", "3d"]
DIGITS = [str(i) for i in range(10)]
GAPS = ["0", "1", "2", "10", "11"]
FROM_ONE = [str(i) for i in range(1, 11)]
PADDED = [f"{i:02}" for i in range(1, 11)]
MIXED = ["2", "cat", "dog"]
STRANGE = ["name:2", "number:1", "2", "true", "1.5", "海船"]


@pytest.mark.parametrize(
    ("label", "classes", "number"),
    [
        ("dog", WORDS, 1),
        (2, WORDS, 2),
        (np.int64(1), WORDS, 1),
        (torch.tensor(0), WORDS, 0),
        ("number:2", WORDS, 2),
        ("name:cat", WORDS, 0),
        (-1, WORDS, -1),
        ("number:-1", FROM_ONE, -1),
        (7, DIGITS, 7),
        (10, DIGITS, 10),  # which is refused where labels are checked
        (2, GAPS, 2),
        (10, GAPS, 3),
        ("10", GAPS, 3),
        ("number:3", GAPS, 3),
        ("name:10", GAPS, 3),
        (10, FROM_ONE, 9),
        ("2", FROM_ONE, 1),
        ("name:2", FROM_ONE, 1),
        ("number:2", FROM_ONE, 2),
        ("02", PADDED, 1),
        (10, PADDED, 9),
        (1, MIXED, 1),
        ("name:2", MIXED, 0),
        ("name:2", STRANGE, 0),
        ("number:1", STRANGE, 1),
        (True, STRANGE, 3),
        (1.5, STRANGE, 4),
        ("name:海船", STRANGE, 5),
        (3, None, 3),
    ],
)
def test_a_class_is_named_in_any_way(label: Any, classes: list[str] | None, number: int):
    assert number_of(label, classes) == number


@pytest.mark.parametrize(
    ("label", "classes", "message"),
    [
        (2, FROM_ONE, r"labels=2: class number 2, counted from 0, is called 3, and the class called 2 is "
                      r"number 1; say what is meant, as in labels=\[name:2\] or labels=\[number:2\]"),
        (3, GAPS, r"class number 3, counted from 0, is called 10, and none is called 3; .* "
                  r"labels=\[name:10\] or labels=\[number:3\]"),
        (0, FROM_ONE, r"class number 0, counted from 0, is called 1, and none is called 0"),
        (2, PADDED, r"is called 03, and the class called 02 is number 1; .* labels=\[name:02\]"),
        (2, MIXED, r"is called dog, and the class called 2 is number 0"),
        ("dig", WORDS, r"labels: this run has no class dig; did you mean dog\?"),
        ("name:dig", WORDS, r"this run has no class dig; did you mean dog"),
        ("number:x", WORDS, r"this run has no class number:x; they are cat, dog, 3d"),
        (True, WORDS, r"this run has no class True"),
        (None, WORDS, r"this run has no class None"),
        ("cat", None, r"trained without classes, so there is no cat"),
    ],
)  # fmt: skip
def test_what_means_none_or_two_is_refused(label: Any, classes: list[str] | None, message: str):
    with pytest.raises(UsageError, match=message):
        number_of(label, classes)


@pytest.mark.parametrize("classes", [WORDS, DIGITS, GAPS, FROM_ONE, PADDED, MIXED, STRANGE])
def test_what_a_message_says_to_type_is_taken(classes: list[str]):
    """And says the class that it names."""
    for index, name in enumerate(classes):
        assert number_of(f"number:{index}", classes) == index or f"number:{index}" in classes
        assert number_of(f"name:{name}", classes) == index or f"name:{name}" in classes
        assert number_of(name, classes) == index
