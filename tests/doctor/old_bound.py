"""The bound's term as it once was: both terms for every sample, and one of them dropped.

A value that is dropped still has a gradient, and 0 times infinity is NaN; and the gradient of float32
`log_ndtr` is wrong far out.
"""

import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Prediction
from ddpm.diffusion.likelihood import _bits_per_dim, _kl

HALF_LEVEL = 1 / 255
FAR = 1e6


def bound_term(
    schedule: NoiseSchedule, x_0: Tensor, t: Tensor, prediction: Prediction, *, levels: bool = True
) -> Tensor:
    assert levels
    log_variance = prediction.log_variance.expand_as(x_0)
    difference = schedule.lookup("posterior_mean_x_0", t, x_0) * (x_0 - prediction.x_0)
    posterior = schedule.lookup("posterior_variance_positive", t, x_0).log()
    later = _bits_per_dim(_kl(difference, posterior, log_variance))
    decoder = _bits_per_dim(-discretized_log_likelihood(x_0, prediction.x_0, log_variance))
    return torch.where(t == 0, decoder, later)


def discretized_log_likelihood(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    precision = (-log_variance / 2).exp()
    below = ((x_0 - HALF_LEVEL - mean) * precision).clamp(-FAR, FAR)
    above = ((x_0 + HALF_LEVEL - mean) * precision).clamp(-FAR, FAR)
    below = torch.where(x_0 < HALF_LEVEL - 1, -FAR, below)
    above = torch.where(x_0 > 1 - HALF_LEVEL, FAR, above)
    mirrored = below + above > 0
    below, above = torch.where(mirrored, -above, below), torch.where(mirrored, -below, above)
    log_above = torch.special.log_ndtr(above)
    log_ratio = torch.special.log_ndtr(below) - log_above
    return log_above + (-torch.expm1(log_ratio)).clamp(min=1e-12).log()
