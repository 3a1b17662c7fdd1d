"""Numbers as levels of brightness."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddpm.data.pixels.levels import Numbers, levels


def one(value: float, kind: str = "f8") -> np.ndarray:
    return np.full((1, 1, 1), value, kind)


def test_a_level_is_rounded():
    held = np.array([0, 1, 128, 129, 257, 32768, 65535], np.uint16).reshape(1, -1, 1)
    found, values, limits = levels(Numbers(held, (0, 65535)))
    assert found.ravel().tolist() == [0, 0, 0, 1, 1, 128, 255]
    assert (values, limits) == ((0, 65535), (0, 65535))


@given(
    st.sampled_from(["u1", "i1", "u2", "i2", "<i4", ">u4", "i8", "f4", "f8"]),
    st.integers(-(2**31), 2**31),
    st.integers(1, 2**32),
    st.floats(0, 1),
    st.booleans(),
)
def test_a_level_is_where_the_number_is_in_its_range(
    kind: str, lowest: int, span: int, share: float, inverted: bool
):
    """Within half a level, in any type that holds the number."""
    highest = lowest + span
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        value = float(dtype.type(lowest + share * span))
    else:
        ends = np.iinfo(dtype)
        value = min(max(round(lowest + share * span), ends.min), ends.max)
    if not lowest <= value <= highest:
        return
    found, values, limits = levels(Numbers(one(value, kind), (lowest, highest), inverted=inverted))
    expected = 255 * (float(value) - lowest) / span
    assert abs(found[0, 0, 0] - (255 - expected if inverted else expected)) <= 0.5 + 1e-3
    assert values == (value, value)
    assert limits == (lowest, highest)


def test_a_stated_range_takes_the_place_of_the_limits():
    found, _, limits = levels(Numbers(one(50), (0, 255)), (0, 100))
    assert (found[0, 0, 0], limits) == (128, (0, 100))
    found, _, limits = levels(Numbers(one(20), (0, 255), inverted=True), (0, 100))
    assert (found[0, 0, 0], limits) == (204, (0, 100))


@pytest.mark.parametrize(
    ("numbers", "value_range", "reason"),
    [
        (
            Numbers(one(0.5, "f4"), None),
            None,
            "type float32, here 0.5, and nothing says which are black",
        ),
        (
            Numbers(one(5), (0, 4), "its maxval"),
            None,
            "it holds 5, beyond its maxval, 0 to 4; name",
        ),
        (Numbers(one(5), (0, 9)), (0, 4), "it holds 5, beyond data.value_range, 0 to 4"),
        (Numbers(one(-1), (0, 9)), (0, 4), "it holds -1, beyond data.value_range"),
        (
            Numbers(one(np.nan), (0, 1)),
            None,
            "holds nan, beyond its type of numbers, 0 to 1; mend or remove it",
        ),
        (Numbers(one(np.inf), (0, 1)), None, "it holds inf"),
        (Numbers(one(-np.inf), (0, 1)), None, "it holds -inf"),
        (Numbers(one(2**25, "f4"), (2**25 + 1, 2**26)), None, "it holds 3.35544e+07, beyond"),
        (Numbers(one(1), (0, 255), whole=False), (0, 9), "only the upper byte"),
        (Numbers(one(1), (0, 9), "its tags", whole=False), None, "only the upper byte"),
    ],
)
def test_what_has_no_level(numbers: Numbers, value_range: tuple[float, float] | None, reason: str):
    with pytest.raises(ValueError, match=re.escape(reason)):
        levels(numbers, value_range)


def test_what_is_not_opaque_is_laid_over_white():
    held = np.array([0, 100, 200], np.uint8).reshape(1, 3, 1)
    opacity = np.array([[1, 0.5, 0]])
    found, values, _ = levels(Numbers(held, (0, 255), opacity=opacity))
    assert found.ravel().tolist() == [0, 178, 255]
    assert values == (0, 200)
