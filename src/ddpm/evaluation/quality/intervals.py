"""Where a share lies that was counted."""

import math

from scipy.special import ndtri


def share(value: float, n: int, level: float = 0.95) -> list[float]:
    """Wilson's interval of a share among n that were drawn (Wilson 1927): also of 0 and 1 it is right.

    What a share depends on beside these n, such as the other of two sets, is taken as given.

    Args:
        value: in [0, 1].
        n: how many were counted.
        level: probability that it lies within.
    """
    z = float(ndtri((1 + level) / 2))
    centre = (value + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    return [max(0.0, centre - margin), min(1.0, centre + margin)]
