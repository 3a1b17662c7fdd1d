"""The interval of a share is Wilson's."""

import math

import pytest

from ddpm.evaluation.quality.intervals import share


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_published_values(right: int, n: int, low: float, high: float):
    """Newcombe 1998, table I, method 3."""
    assert share(right / n, n) == pytest.approx([low, high], abs=5e-5)


def test_its_ends_are_the_shares_that_the_count_is_just_likely_for():
    z = 1.6448536269514722
    for end in share(0.3, 50, level=0.9):
        assert abs(0.3 - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 50))


def test_of_all_the_interval_ends_at_one():
    low, high = share(1.0, 10)
    assert low < 1
    assert high == pytest.approx(1)
