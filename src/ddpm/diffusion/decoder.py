"""The decoder's likelihood: the probability that a Gaussian gives to one of 256 levels.

Written for any number of standard deviations between level and mean, and for any standard deviation beside
the width of a level, in float32 as in float64: neither the value nor its gradient is ever a difference of two
numbers that are nearly the same. The gradient is stated in closed form, since that of the branches by
automatic differentiation is 0 times infinity where a branch was not taken.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HALF_LEVEL = 1 / 255
"""Half the distance of two neighbouring levels."""

NODES = [
    (float(node), float(weight)) for node, weight in zip(*np.polynomial.legendre.leggauss(8), strict=True)
]
"""Of the Gauss-Legendre quadrature on [-1, 1], with its weights."""


def discretized_log_likelihood(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Natural log of the probability that a Gaussian gives to the level of x_0 (Ho et al. 2020, eq. 13).

    The lowest and the highest level reach to infinity. Differentiable once, by mean and log-variance. Finite
    for finite arguments: a standard deviation counts as no less than 1e-15 and no more than 1e15 in float32,
    a level as no further away than 1e15 of them, in float64 1e123.

    Args:
        x_0: levels k of 256 as k / 127.5 - 1.
        mean, log_variance: of the Gaussian. All of one shape, or broadcasting, and of one dtype.
    """
    shape = torch.broadcast_shapes(x_0.shape, mean.shape, log_variance.shape)
    log_likelihood: Tensor = _LogLikelihood.apply(*(v.expand(shape) for v in (x_0, mean, log_variance)))
    return log_likelihood


class _LogLikelihood(torch.autograd.Function):
    """With phi the density of a unit Gaussian and Q the probability above, a level whose nearer edge is
    `near` and whose further edge `far` standard deviations beyond the mean has the probability
    Q(near) - Q(far); `near` is negative where the mean is within the level. An edge at infinity counts as the
    further one.
    """

    @staticmethod
    def forward(ctx: Any, x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        most = torch.finfo(mean.dtype).max ** 0.4
        precision = (-log_variance / 2).exp().clamp(1 / most, most)
        lowest, highest = x_0 < HALF_LEVEL - 1, x_0 > 1 - HALF_LEVEL
        open_ended = lowest | highest
        offset = mean - x_0
        mean_above = torch.where(open_ended, lowest, offset > 0)
        distance = torch.where(mean_above, offset, -offset)
        near = ((distance - HALF_LEVEL) * precision).clamp(-most, most)
        far = ((distance + HALF_LEVEL) * precision).clamp(-most, most)
        half = HALF_LEVEL * precision
        # phi(far) / phi(near) = exp(-fall)
        fall = torch.where(open_ended, math.inf, 2 * half * (distance * precision))
        ratio = (-fall).exp()

        # A level so narrow that Q hardly changes within it: integrate phi over it.
        narrow = ~open_ended & (half * torch.maximum(distance * precision, half) <= 1)
        integral = torch.zeros_like(near)
        for node, weight in NODES:
            s = half * (1 + node)
            integral = integral + weight * (-s * (near + s / 2)).exp()
        # Otherwise take Q from Mills' ratio Q / phi. It alone keeps its digits far out, on every device.
        mills_near, mills_far = _mills(near.abs()), ratio * _mills(far.abs())
        outside = near >= 0
        scaled = torch.where(narrow, half * integral, mills_near - mills_far)  # probability / phi(near)
        density = (-near.square() / 2).exp() / math.sqrt(2 * math.pi)
        missing = density * (mills_near + mills_far)  # 1 - probability, of a level with the mean within it

        by_scaled = narrow | outside
        hazard = torch.where(by_scaled, 1 / scaled, density / (1 - missing))  # phi(near) / probability
        by_distance = hazard * torch.expm1(-fall) * precision
        by_mean = torch.where(mean_above, by_distance, -by_distance)
        by_log_variance = hazard * (-near * torch.expm1(-fall) / 2 - half * ratio)
        ctx.save_for_backward(by_mean, by_log_variance)
        log_scaled = scaled.log() - near.square() / 2 - math.log(2 * math.pi) / 2
        return torch.where(by_scaled, log_scaled, torch.log1p(-missing))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, Tensor]:
        by_mean, by_log_variance = ctx.saved_tensors
        return None, gradient * by_mean, gradient * by_log_variance


def _mills(x: Tensor) -> Tensor:
    """Q(x) / phi(x) of a unit Gaussian, for x >= 0: between 1.26 and 1 / x."""
    scaled: Tensor = torch.special.erfcx(x / math.sqrt(2))
    return math.sqrt(math.pi / 2) * scaled
