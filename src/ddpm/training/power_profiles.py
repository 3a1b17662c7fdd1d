"""Power-function profiles of averages over a trajectory, and how some of them make up another (Karras et al.
2024, section 3 and appendix C).

The average of exponent gamma at time t weighs the parameters of time s <= t by
p(s) = (gamma + 1) s^gamma / t^(gamma + 1). Its length is stated as sigma_rel, the standard deviation of this
profile relative to t.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LONGEST = 1 / math.sqrt(12)
"""sigma_rel of gamma = 0, the plain mean of all steps."""


class Profile(NamedTuple):
    """Of an average.

    Attributes:
        sigma_rel: its length, in (0, LONGEST].
        t: the time at which it is taken, above 0; here the number of updates.
    """

    sigma_rel: float
    t: float


class Combination(NamedTuple):
    """Averages that make up another.

    Attributes:
        weights: of each, float64 [N].
        error: the L2 norm of what the sum of their profiles lacks of the wanted one, relative to this one's.
    """

    weights: np.ndarray
    error: float


def exponent(sigma_rel: float) -> float:
    """gamma of a length: sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)) (Karras et al. 2024,
    algorithm 2).

    Raises:
        ValueError: where the length is not in (0, LONGEST].
    """
    if not (isinstance(sigma_rel, int | float) and 0 < sigma_rel <= LONGEST):
        raise ValueError(f"sigma_rel={sigma_rel} must be above 0 and at most {LONGEST:.4f}, the mean of all")
    inverse = float(sigma_rel) ** -2
    return max(0.0, float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))


def decay(t: int, gamma: float) -> float:
    """What update t, from 1 on, keeps of the average before it: (1 - 1/t)^(gamma + 1) (Karras et al. 2024,
    section 3.1).

    After update t the parameters of update i weigh (i^(gamma + 1) - (i - 1)^(gamma + 1)) / t^(gamma + 1):
    exactly the profile's integral from i - 1 to i.
    """
    return float((1 - 1 / t) ** (gamma + 1))


def inner_products(one: Sequence[Profile], other: Sequence[Profile]) -> np.ndarray:
    """The integrals of the products of two profiles (Karras et al. 2024, appendix C): float64 [N, M].

    Of exponents a until time s and b until t >= s it is (a + 1) (b + 1) / (a + b + 1) (s / t)^b / t.
    """
    (a, s), (b, t) = (_exponents_and_times(profiles) for profiles in (one, other))
    a, s = a[:, None], s[:, None]
    later = np.maximum(s, t)
    return (a + 1) * (b + 1) / (a + b + 1) * (np.minimum(s, t) / later) ** np.where(s <= t, b, a) / later


def _exponents_and_times(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    known = {length: exponent(length) for length in {profile.sigma_rel for profile in profiles}}
    exponents = [known[profile.sigma_rel] for profile in profiles]
    return np.array(exponents), np.array([profile.t for profile in profiles], np.float64)


def combination(given: Sequence[Profile], wanted: Profile) -> Combination:
    """The least-squares solution for a profile from others (Karras et al. 2024, algorithm 3), in float64.

    Args:
        given: of averages that there are, at different times or of different lengths.
        wanted: of the average that is to be made of them.
    """
    products, onto = inner_products(given, given), inner_products(given, [wanted])[:, 0]
    norms, size = np.sqrt(np.diag(products)), math.sqrt(inner_products([wanted], [wanted])[0, 0])
    # cosines of the angles between profiles: the norms of different times are far apart
    products, onto = products / (norms[:, None] * norms), onto / (norms * size)
    solved = np.linalg.lstsq(products, onto, rcond=1e-14)[0]
    left = 1 - 2 * solved @ onto + solved @ products @ solved
    return Combination(solved * size / norms, math.sqrt(max(0.0, float(left))))
