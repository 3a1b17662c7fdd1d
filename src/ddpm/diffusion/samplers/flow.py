"""The ODE of DDIM, also called the probability flow."""

import math


def euler(alpha_bar_s: float, alpha_bar_t: float) -> tuple[float, float]:
    """A step from s to t along the eps of x_s: x_t = ratio x_s + stride eps (Song et al. 2021, eq. 13).

    In the coordinate x = x_t / sqrt(alpha-bar) the ODE is dx = eps dsigma, with sigma = 1 / sqrt(SNR).

    Args:
        alpha_bar_s: where the step begins, in (0, 1].
        alpha_bar_t: where it ends, in [0, 1].

    Returns:
        ratio and stride.
    """
    ratio = math.sqrt(alpha_bar_t / alpha_bar_s)
    return ratio, math.sqrt(1 - alpha_bar_t) - ratio * math.sqrt(1 - alpha_bar_s)
