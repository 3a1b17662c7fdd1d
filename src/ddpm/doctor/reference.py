"""What the parts of an experiment should say about Gaussian data, derived by conditioning joint Gaussians.

The options that come with the project are held to what their names mean: `OBJECTIVES`, `INPUTS`, `VARIANCES`
and `WEIGHTINGS` say it, each without the formula that the option itself is built on. An option of someone
else's has no entry there; it is held to what has to be true of any.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Prediction
from ddpm.diffusion.objectives import EDM, X0, Epsilon, Flow, Objective, PosteriorMean, V
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance
from ddpm.diffusion.weighting import P2, SNR, Hybrid, MinSNR, Simple, Uncertainty, VariationalBound
from ddpm.doctor.gaussian import Exact, Gaussian, Noising, times

SHAPE = (2, 1, 2)
"""Channels, height and width of the images: two of each that the formulas could confuse."""

SIZE = math.prod(SHAPE)


def _data(mean: Sequence[float], root: Sequence[Sequence[float]]) -> Gaussian:
    factor = torch.tensor(root, dtype=torch.float64)
    return Gaussian(torch.tensor(mean, dtype=torch.float64), factor @ factor.T)


DATA: Mapping[int | None, Gaussian] = {
    None: _data(
        [0.3, -0.2, 0.1, 0.0],
        [[0.5, 0, 0, 0], [0.2, 0.3, 0, 0], [-0.1, 0.25, 0.1, 0], [0.1, 0.0, -0.2, 0.3]],
    ),
    0: _data(
        [0.6, -0.4, 0.2, 0.1],
        [[0.3, 0, 0, 0], [0.1, 0.2, 0, 0], [0.0, 0.1, 0.2, 0], [0.1, 0.1, 0.0, 0.2]],
    ),
    1: _data(
        [-0.5, 0.1, -0.3, -0.2],
        [[0.2, 0, 0, 0], [-0.1, 0.3, 0, 0], [0.1, 0.0, 0.3, 0], [0.0, -0.1, 0.1, 0.4]],
    ),
}
"""What is drawn: images of each class, and without one."""

VARIANCE_OUTPUT = torch.linspace(-0.6, 0.5, SIZE, dtype=torch.float64)
"""What the network says of a learned variance, for each value of a image."""


def as_images(rows: Tensor, shape: Sequence[int] = SHAPE) -> Tensor:
    """[N, D] -> [N, C, H, W]."""
    return rows.reshape(len(rows), *shape)


@cache
def noising(label: int | None, betas: tuple[float, ...]) -> Noising:
    """Of one of `DATA`; made once for all steps that are visited."""
    return Noising(DATA[label], betas)


@cache
def exact(label: int | None, betas: tuple[float, ...], steps: tuple[int, ...] | None = None) -> Exact:
    """For one of `DATA`; a table is made once."""
    return Exact(noising(label, betas), steps)


def _turned(objective: Objective, chain: Exact, i: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
    """x_t a quarter turn further on the circle from x_0 to eps."""
    angle = torch.atan2(chain.noise, chain.signal)[i, None] + math.pi / 2
    return angle.cos() * x_0 + angle.sin() * chain.eps(i, x_t, x_0)


def _preconditioned(objective: EDM, chain: Exact, i: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
    """(x_0 - c_skip x) / c_out, in the frame where x = x_0 + sigma eps."""
    sigma, sd = (chain.noise / chain.signal)[i, None], objective.sigma_data
    c_skip = sd**2 / (sigma**2 + sd**2)
    c_out = sigma * sd / (sigma**2 + sd**2).sqrt()
    return (x_0 - c_skip * x_t / chain.signal[i, None]) / c_out


OBJECTIVES: dict[type, Callable[..., Tensor]] = {
    Epsilon: lambda objective, chain, i, x_t, x_0: chain.eps(i, x_t, x_0),
    X0: lambda objective, chain, i, x_t, x_0: x_0,
    V: _turned,
    PosteriorMean: lambda objective, chain, i, x_t, x_0: chain.mean_before(i, x_t, x_0),
    Flow: lambda objective, chain, i, x_t, x_0: chain.eps(i, x_t, x_0) - x_0,
    EDM: _preconditioned,
}
"""(objective, original chain, i, x_t, x_0) -> what the output of the network is to be."""


def _in_flow(objective: Flow, chain: Exact) -> tuple[Tensor, Tensor]:
    """In the frame where x = (1 - u) x_0 + u eps."""
    scale = 1 / (chain.signal + chain.noise)
    return scale, 1000 * scale * chain.noise


def _in_edm(objective: EDM, chain: Exact) -> tuple[Tensor, Tensor]:
    sigma = chain.noise / chain.signal
    return 1 / (chain.signal * (sigma**2 + objective.sigma_data**2).sqrt()), sigma.log() / 4


INPUTS: dict[type, Callable[..., tuple[Tensor, Tensor]]] = {Flow: _in_flow, EDM: _in_edm}
"""(objective, chain in use) -> what x_t is multiplied by before a network sees it, and what the network is
given for the step: [K] each. Objectives that have no entry here leave x_t as it is, and give the step.
"""

VARIANCES: dict[type, Callable[[Exact, Tensor], Tensor]] = {
    FixedSmall: lambda chain, output: chain.small.log()[:, None],
    FixedLarge: lambda chain, output: torch.cat([chain.small[:1], chain.large[1:]]).log()[:, None],
    Learned: lambda chain, output: output.expand(len(chain.steps), -1),
    LearnedRange: lambda chain, output: torch.lerp(
        chain.small.log()[:, None], chain.large.log()[:, None], (output + 1) / 2
    ),
}
"""(chain in use, the network's output [D]) -> log-variance [K, D] of the reverse step."""


class Errors:
    """What a weighting can weigh, each [N]: squared errors of the network's output, and of the x_0 and the
    eps that it stands for; the bound's term times T, in bits, whose gradient reaches the mean or not; and
    the noise on one part of x_0.
    """

    def __init__(
        self,
        output: Tensor,
        x_0: Tensor,
        eps: Tensor,
        bound: Tensor,
        bound_of_variance: Tensor,
        sigma: Tensor,
    ):
        self.sigma = sigma
        self.output = output
        self.x_0 = x_0
        self.eps = eps
        self.bound = bound
        self.bound_of_variance = bound_of_variance


def _uncertain(weighting: Uncertainty, errors: Errors) -> Tensor:
    """The negative logarithm of an exponential density of the error, whose mean is learned: a series of
    Chebyshev's polynomials, by their recurrence.
    """
    here = torch.cos(math.pi / (1 + errors.sigma.sqrt()))
    polynomials = [torch.ones_like(here), here]
    for _ in weighting.coefficients[2:]:
        polynomials.append(2 * here * polynomials[-1] - polynomials[-2])
    pairs = zip(weighting.coefficients.detach().double(), polynomials, strict=True)
    log_mean = torch.stack([factor * polynomial for factor, polynomial in pairs]).sum(0)
    return errors.output / log_mean.exp() + log_mean


WEIGHTINGS: dict[type, Callable[..., Tensor]] = {
    Simple: lambda weighting, errors: errors.output,
    SNR: lambda weighting, errors: errors.eps,
    MinSNR: lambda weighting, errors: torch.minimum(errors.eps, weighting.gamma * errors.x_0),
    P2: lambda weighting, errors: errors.eps / (weighting.k + errors.eps / errors.x_0) ** weighting.gamma,
    VariationalBound: lambda weighting, errors: errors.bound,
    Hybrid: lambda weighting, errors: errors.output + weighting.bound_share * errors.bound_of_variance,
    Uncertainty: _uncertain,
}
"""(weighting, errors) -> the loss, [N]."""


def output_for(
    objective: Objective, schedule: NoiseSchedule, chain: Exact, i: Tensor, x_t: Tensor, x_0: Tensor
) -> Tensor:
    """The right output for x_t [N, D] at the steps `i` of the original chain, if x_0 were that."""
    meaning = OBJECTIVES.get(type(objective))
    if meaning is not None:
        return meaning(objective, chain, i, x_t, x_0)
    eps = as_images(chain.eps(i, x_t, x_0))
    return objective.target(schedule, as_images(x_0), i, eps).flatten(1)


def log_variance(variance: Variance, chain: Exact, schedule: NoiseSchedule) -> Tensor:
    """Of the reverse step on the chain in use, [K, D], for the output `VARIANCE_OUTPUT`.

    `schedule` is that chain, for a variance that is not known here.
    """
    meaning = VARIANCES.get(type(variance))
    count = len(chain.steps)
    if meaning is not None:
        return meaning(chain, VARIANCE_OUTPUT).expand(count, SIZE)
    x_t = torch.zeros(count, *SHAPE, dtype=torch.float64)
    output = as_images(VARIANCE_OUTPUT.expand(count, -1)) if variance.outputs else x_t[:, :0]
    return variance.log_variance(schedule, x_t, torch.arange(count), output).expand_as(x_t).flatten(1)


def inputs_of(objective: Objective, schedule: NoiseSchedule, chain: Exact) -> tuple[Tensor, Tensor]:
    """As `INPUTS`, on a chain that is `chain` and `schedule` alike; someone else's objective is asked."""
    meaning = INPUTS.get(type(objective))
    if meaning is not None:
        return meaning(objective, chain)
    count = len(chain.steps)
    ones = torch.ones(count, *SHAPE, dtype=torch.float64)
    if type(objective) in OBJECTIVES:
        return ones.flatten(1)[:, 0], torch.tensor(chain.steps)
    seen, given = objective.network_inputs(schedule, ones, torch.arange(count))
    return seen.flatten(1)[:, 0], given


class Inputs:
    """What a network's inputs say: the inverse of `inputs_of`, on the original chain.

    Args:
        objective, schedule: of the network.
    """

    def __init__(self, objective: Objective, schedule: NoiseSchedule):
        chain = exact(None, tuple(schedule.betas.tolist()))
        self._scale, self._given = inputs_of(objective, schedule, chain)

    def __call__(self, seen: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """x_t as rows [N, D], and t int64 [N].

        Raises:
            ValueError: where what is given for a step belongs to none.
        """
        away = (given.double()[:, None] - self._given).abs() / self._given.abs().clamp(min=1)
        nearest, t = away.min(1)
        if float(nearest.max()) > 1e-7:
            raise ValueError(f"a network is given {float(given[nearest.argmax()]):.6g}, which is no step")
        return seen.flatten(1) / self._scale[t, None], t


class GaussianNetwork:
    """The best network there is: its output is E[what the objective asks for | x_t], which is affine in x_t.

    Args:
        objective: says what is asked for.
        schedule: the original chain.
        variance: whether `VARIANCE_OUTPUT` follows the prediction.
    """

    def __init__(self, objective: Objective, schedule: NoiseSchedule, variance: Variance):
        self.variance = variance
        self._inputs = Inputs(objective, schedule)
        betas = tuple(schedule.betas.tolist())
        self._affine: dict[int | None, tuple[Tensor, Tensor]] = {}
        i = torch.arange(schedule.num_timesteps)
        for label in DATA:
            chain = exact(label, betas)

            def best(x_t: Tensor, chain: Exact = chain) -> Tensor:
                return output_for(objective, schedule, chain, i, x_t, chain.best_x_0(i, x_t))

            offset = best(torch.zeros(len(i), SIZE, dtype=torch.float64))
            units = torch.eye(SIZE, dtype=torch.float64)
            columns = [best(unit.expand(len(i), -1)) - offset for unit in units]
            self._affine[label] = torch.stack(columns, dim=2), offset

    def __call__(self, seen: Tensor, given: Tensor, labels: Tensor | None = None) -> Tensor:
        (label,) = {None} if labels is None else set(labels.tolist())
        gain, offset = self._affine[label]
        x_t, t = self._inputs(seen, given)
        output = as_images(times(gain[t], x_t) + offset[t])
        if not self.variance.outputs:
            return output
        return torch.cat([output, as_images(VARIANCE_OUTPUT.expand(len(x_t), -1))], dim=1)


class ReferenceDenoiser:
    """Tells a sampler what is right, without the project's own denoiser.

    Args:
        chain: the steps that the sampler visits.
        x_0: (i [N], x_t [N, D]) -> the x_0 to be predicted, [N, D]; by default the best there is.
        log_variance: [K, D], of the reverse step; 0 by default.
    """

    def __init__(
        self,
        chain: Exact,
        x_0: Callable[[Tensor, Tensor], Tensor] | None = None,
        log_variance: Tensor | None = None,
    ):
        self.chain = chain
        self.x_0 = x_0 or chain.best_x_0
        size = chain.noising.size
        self.log_variance = (
            torch.zeros(len(chain.steps), size, dtype=torch.float64) if log_variance is None else log_variance
        )

    def __call__(self, schedule: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        rows, shape = x_t.flatten(1), x_t.shape[1:]
        x_0 = self.x_0(t, rows)
        return Prediction(
            as_images(x_0, shape),
            as_images(self.chain.eps(t, rows, x_0), shape),
            as_images(self.log_variance[t], shape),
        )
