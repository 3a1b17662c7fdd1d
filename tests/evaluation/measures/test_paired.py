"""Differences of values on the same images: closed forms, and intervals that cover as often as they say."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from ddpm.evaluation.measures.paired import (
    Difference,
    holm,
    of_jackknife,
    of_means,
    of_replicates,
    of_shares,
)

RANDOM = np.random.default_rng(5)
ONE, OTHER = RANDOM.normal(1.0, 1.0, 30), RANDOM.normal(0.7, 2.0, 30)
TIMES = 2000


def test_means_are_compared_by_students_test_of_pairs():
    found, theirs = of_means(ONE, OTHER), ttest_rel(ONE, OTHER)
    assert found.value == pytest.approx((ONE - OTHER).mean())
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval(0.95)))


def test_shares_are_compared_with_half_an_image_in_each_cell():
    """Of 100 images 53 count in both, 16 in the first only, 6 in the second only."""
    one = np.array([True] * 69 + [False] * 31)
    other = np.array([True] * 53 + [False] * 16 + [True] * 6 + [False] * 25)
    found = of_shares(one, other)
    centre = (16.5 - 6.5) / 102
    error = math.sqrt((16.5 + 6.5 - (16.5 - 6.5) ** 2 / 102) / 102**2)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((centre - 1.959964 * error, centre + 1.959964 * error))
    assert found.p_value == pytest.approx(math.erfc(centre / error / math.sqrt(2)))


def test_without_a_difference_the_interval_of_shares_still_has_a_width():
    alike = np.ones(50, dtype=bool)
    found = of_shares(alike, alike)
    assert (found.value, found.p_value) == (0, 1)
    assert found.low == -found.high < 0


def test_replicates_give_their_spread_to_the_difference_of_the_values():
    found = of_replicates(0.5, ONE, OTHER, scale=0.5)
    margin = 2.0452296 * 0.5 * (ONE - OTHER).std(ddof=1)
    assert (found.low, found.high) == pytest.approx((0.5 - margin, 0.5 + margin))


def test_the_jackknife_of_a_mean_is_students_test():
    def without(values: np.ndarray) -> np.ndarray:
        return (values.sum() - values) / (len(values) - 1)

    value = ONE.mean() - OTHER.mean()
    assert of_jackknife(value, [without(ONE)], [without(OTHER)]) == pytest.approx(of_means(ONE, OTHER))


def test_a_set_that_moves_both_alike_moves_no_difference():
    alone = of_jackknife(0.1, [ONE], [OTHER])
    assert of_jackknife(0.1, [ONE, 3 * ONE], [OTHER, 3 * ONE]) == pytest.approx(alone)
    more = of_jackknife(0.1, [ONE, ONE], [OTHER, OTHER])
    assert (more.high - more.low) == pytest.approx(2**0.5 * (alone.high - alone.low))


@pytest.mark.parametrize(
    "found",
    [
        of_means(ONE, ONE),
        of_replicates(0.0, ONE, ONE),
        of_jackknife(0.0, [ONE], [ONE]),
    ],
)
def test_a_run_does_not_differ_from_itself(found: Difference):
    assert found == (0, 0, 0, 1)


def test_of_too_few_images_nothing_is_known_but_the_difference():
    for found in (of_means(ONE[:1], OTHER[:1]), of_jackknife(1.0, [ONE[:2]], [OTHER[:2]])):
        assert math.isfinite(found.value)
        assert all(map(math.isnan, found[1:]))


@pytest.mark.parametrize(("one", "other"), [(ONE, ONE[:5]), (ONE[:, None], ONE[:, None]), (ONE[:0], ONE[:0])])
def test_what_is_no_pair_is_refused(one: np.ndarray, other: np.ndarray):
    for compare in (of_means, of_shares):
        with pytest.raises(ValueError, match="are no pairs"):
            compare(one, other)


def test_p_values_among_several():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    assert holm([0.02]) == [0.02]
    found = holm([math.nan, 0.02, 0.03])
    assert found[1:] == pytest.approx([0.04, 0.04])
    assert math.isnan(found[0])


def test_intervals_of_means_cover_and_are_narrower_for_the_pairing():
    random = np.random.default_rng(2)
    covers = narrower = 0
    for _ in range(TIMES):
        common = random.normal(size=12)
        one, other = common + random.normal(0.3, 0.4, 12), common + random.normal(0.0, 0.6, 12)
        paired, crossed = of_means(one, other), of_means(one, random.permutation(other))
        covers += paired.low <= 0.3 <= paired.high
        narrower += paired.high - paired.low < crossed.high - crossed.low
    assert 0.935 < covers / TIMES < 0.965
    assert narrower / TIMES > 0.95


@pytest.mark.parametrize("shares", [(0.9, 0.8), (0.98, 0.97), (0.5, 0.5)])
def test_intervals_of_shares_cover(shares: tuple[float, float]):
    random = np.random.default_rng(1)
    covers = 0
    for _ in range(TIMES):
        common = random.random(60)
        one = np.where(random.random(60) < 0.5, common, random.random(60)) < shares[0]
        other = np.where(random.random(60) < 0.5, common, random.random(60)) < shares[1]
        found = of_shares(one, other)
        covers += found.low <= shares[0] - shares[1] <= found.high
    assert 0.935 < covers / TIMES <= 1
