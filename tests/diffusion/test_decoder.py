"""The decoder's likelihood and its gradients against 60-digit arithmetic, wherever mean and variance lie."""

from itertools import product

import mpmath
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.decoder import discretized_log_likelihood

LEVELS = [k / 127.5 - 1 for k in (0, 1, 100, 128, 254, 255)]
MEANS = [-50.0, -3.0, -1.004, -1.0, -0.996, -0.2118, 0.0, 0.0039, 0.004, 0.5, 0.9961, 1.1, 1000.0]
"""Within a level, at its edge, and up to 1e11 standard deviations away."""
LOG_VARIANCES = [-40.0, -25.0, -16.0, -13.0, -11.5, -11.0, -10.5, -9.0, -7.0, -2.0, 0.0, 5.0, 40.0]
"""Half a level is a standard deviation at -11.08."""
GRID = list(product(LEVELS, MEANS, LOG_VARIANCES))


def exact(x_0: float, mean: float, log_variance: float, half: float | mpmath.mpf) -> tuple[mpmath.mpf, ...]:
    """Log-likelihood, and its derivatives by mean and log-variance."""
    deviation = mpmath.exp(mpmath.mpf(log_variance) / 2)
    offset = mpmath.mpf(x_0) - mpmath.mpf(mean)
    below = -mpmath.inf if x_0 < half - 1 else (offset - half) / deviation
    above = mpmath.inf if x_0 > 1 - half else (offset + half) / deviation

    def density(z: mpmath.mpf) -> mpmath.mpf:
        return mpmath.npdf(z) if mpmath.isfinite(z) else mpmath.mpf(0)

    def mass_above(z: mpmath.mpf) -> mpmath.mpf:
        return mpmath.erfc(z / mpmath.sqrt(2)) / 2

    if below > 0 or above < 0:  # a tail: the difference of what is beyond the two edges
        near, far = sorted((abs(below), abs(above)))
        likelihood = mass_above(near) - mass_above(far)
        log_likelihood = mpmath.log(likelihood)
    else:
        missing = mass_above(-below) + mass_above(above)
        likelihood, log_likelihood = 1 - missing, mpmath.log1p(-missing)
    by_edges = [z * density(z) if mpmath.isfinite(z) else mpmath.mpf(0) for z in (below, above)]
    return (
        log_likelihood,
        (density(below) - density(above)) / (deviation * likelihood),
        (by_edges[0] - by_edges[1]) / (2 * likelihood),
    )


def found(dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """The arguments, each [N], and log-likelihood and derivatives."""
    x_0, mean, log_variance = (torch.tensor(column, dtype=dtype) for column in zip(*GRID, strict=True))
    arguments = [x_0, mean.requires_grad_(), log_variance.requires_grad_()]
    log_likelihood = discretized_log_likelihood(*arguments)
    gradients = torch.autograd.grad(log_likelihood.sum(), arguments[1:])
    return [a.detach() for a in arguments], [log_likelihood.detach(), *gradients]


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 5e-6)])
def test_value_and_gradients_are_those_of_60_digits(dtype: torch.dtype, bound: float):
    """To a relative bound, or as well as arguments of this dtype determine them: as much as the truth changes
    when the half width of a level, the distance and the deviation are rounded.
    """
    mpmath.mp.dps = 60
    arguments, results = found(dtype)
    rounding, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    half = mpmath.mpf(1) / 255
    for x_0, mean, log_variance, *values in zip(*(v.tolist() for v in arguments + results), strict=True):
        truth = exact(x_0, mean, log_variance, half)
        errors = [abs(value - true) for value, true in zip(values, truth, strict=True)]
        allowed = [bound * abs(true) + tiny for true in truth]
        if all(error <= most for error, most in zip(errors, allowed, strict=True)):
            continue
        for moved in (
            exact(x_0, mean, log_variance, half * (1 + rounding)),
            exact(x_0, mean + rounding * abs(x_0 - mean), log_variance, half),
            exact(x_0, mean, log_variance + 2 * rounding, half),
        ):
            allowed = [a + abs(o - true) for a, o, true in zip(allowed, moved, truth, strict=True)]
        assert all(error <= most for error, most in zip(errors, allowed, strict=True)), (
            f"x_0 {x_0}, mean {mean}, log-variance {log_variance}: {values}, not {truth}"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_however_far(dtype: torch.dtype):
    edges = torch.tensor([0.0, 1e-30, 1e-4, 1.0, 1e3, 1e10, 1e20], dtype=dtype)
    mean = torch.cat([-edges, edges]).requires_grad_()
    log_variance = torch.linspace(-300, 300, 61, dtype=dtype)[:, None].requires_grad_()
    for level in LEVELS:
        values = discretized_log_likelihood(torch.tensor(level, dtype=dtype), mean, log_variance)
        assert torch.isfinite(values).all()
        assert (values <= 0).all()
        for gradient in torch.autograd.grad(values.sum(), (mean, log_variance)):
            assert torch.isfinite(gradient).all()


def test_gradients_are_of_the_shape_that_was_given():
    x_0 = torch.tensor(LEVELS).view(2, 3, 1)
    mean, log_variance = torch.zeros(1, 3, 4, requires_grad=True), torch.zeros((), requires_grad=True)
    values = discretized_log_likelihood(x_0, mean, log_variance)
    assert values.shape == (2, 3, 4)
    by_mean, by_log_variance = torch.autograd.grad(values.sum(), (mean, log_variance))
    assert by_mean.shape == mean.shape
    assert by_log_variance.shape == ()
    separate = [
        torch.autograd.grad(discretized_log_likelihood(level, mean, log_variance).sum(), log_variance)[0]
        for level in x_0.split(1)
    ]
    torch.testing.assert_close(by_log_variance, sum(separate))


def test_it_compiles_as_one_graph_with_the_same_numbers():
    def gradients(function) -> list[Tensor]:
        x_0, mean, log_variance = torch.tensor(list(product(LEVELS, (-1.2, 0.1), (-12.0, 0.0)))).T
        arguments = mean.clone().requires_grad_(), log_variance.clone().requires_grad_()
        return list(torch.autograd.grad(function(x_0, *arguments).sum(), arguments))

    compiled = torch.compile(discretized_log_likelihood, fullgraph=True, backend="aot_eager")
    for found, expected in zip(gradients(compiled), gradients(discretized_log_likelihood), strict=True):
        torch.testing.assert_close(found, expected)
