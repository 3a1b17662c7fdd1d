"""Differences of two values that were measured on the same images or the same noise, and whether they are
more than chance.

What both share moves both, so that their difference is known better than either of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

LEVEL = 0.95
"""Probability that a difference lies in its interval."""


class Difference(NamedTuple):
    """The first value minus the second.

    Attributes:
        value: of the images that were measured.
        low, high: where the difference lies with probability 0.95.
        p_value: of values that do not differ to come out at least as far apart; NaN where too little is
            known.
    """

    value: float
    low: float
    high: float
    p_value: float


def of_means(one: np.ndarray, other: np.ndarray) -> Difference:
    """Of two means over the same images: the paired t test (Student 1908).

    Args:
        one: [N], a number for each image.
        other: [N], of the same images in the same order.

    Raises:
        ValueError: where they are not of the same images.
    """
    differences = _differences(one, other)
    n = len(differences)
    error = float(differences.std(ddof=1)) / n**0.5 if n > 1 else float("nan")
    return _student(float(differences.mean()), error, n - 1)


def of_shares(one: np.ndarray, other: np.ndarray) -> Difference:
    """Of two shares of the same images: Wald's interval with half an image added to each of the four cells,
    those of both, of either and of neither (Agresti and Min 2005, section 2.2), and the test that it belongs
    to.

    Wald's own has no width where the shares are equal image by image.

    Args:
        one: bool [N], whether each image counts.
        other: bool [N], of the same images in the same order.

    Raises:
        ValueError: where they are not of the same images.
    """
    differences = _differences(one, other)
    n, first, second = len(differences), int((differences > 0).sum()), int((differences < 0).sum())
    centre = (first - second) / (n + 2)
    variance = (first + second + 1) / (n + 2) - centre**2
    error = float(np.sqrt(variance / (n + 2)))
    margin = float(ndtri((1 + LEVEL) / 2)) * error
    p_value = 2 * float(ndtr(-abs(centre) / error))
    return Difference((first - second) / n, max(-1.0, centre - margin), min(1.0, centre + margin), p_value)


def of_replicates(
    value: float, one: np.ndarray, other: np.ndarray, scale: float = 1.0, df: int | None = None
) -> Difference:
    """Of two values, from replicates that were drawn alike (Efron and Tibshirani 1993, section 12.5): the
    spread of their differences is the standard error.

    Args:
        value: the difference of the two.
        one: [R], what the first comes to in each replicate.
        other: [R], the second with the same images in each.
        scale: of the standard error, by the spread.
        df: degrees of freedom; by default R - 1.

    Raises:
        ValueError: where they are not as many.
    """
    differences = _differences(one, other)
    r = len(differences)
    error = scale * float(differences.std(ddof=1)) if r > 1 else float("nan")
    return _student(value, error, r - 1 if df is None else df)


def of_jackknife(value: float, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> Difference:
    """Of two values that depend on several sets of images: the jackknife of their difference (Efron and Stein
    1981), a variance for each of the sets.

    Args:
        value: the difference of the two.
        one: for each set [G], what the first comes to without each group of images in turn.
        other: the same for the second, without the same groups.

    Raises:
        ValueError: where the groups are not as many.
    """
    variance, df = 0.0, []
    for left, right in zip(one, other, strict=True):
        differences = _differences(left, right)
        g = len(differences)
        variance += (g - 1) * float(differences.var()) if g > 2 else float("nan")
        df.append(g - 1)
    return _student(value, variance**0.5, min(df))


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p value as it counts among all of them, so that with probability 0.95 none below 0.05 is of
    values that do not differ (Holm 1979). NaN stays, and does not count.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted, highest = list(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _student(value: float, error: float, df: int) -> Difference:
    if not np.isfinite(error) or df < 1:
        return Difference(value, float("nan"), float("nan"), float("nan"))
    margin = float(stdtrit(df, (1 + LEVEL) / 2)) * error
    if error == 0:  # as of a run and itself
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    p_value = 2 * float(stdtr(df, -abs(value) / error))
    return Difference(value, value - margin, value + margin, p_value)


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.shape != other.shape or one.ndim != 1 or not len(one):
        raise ValueError(f"{list(one.shape)} and {list(other.shape)} numbers are no pairs")
    return one.astype(np.float64) - other.astype(np.float64)
