"""What the parts of an experiment should say about Gaussian data, derived by conditioning joint Gaussians.

The options that come with the project are held to what their names mean: `OBJECTIVES`, `VARIANCES` and
`WEIGHTINGS` say it, each without the formula that the option itself is built on. An option of someone else's
has no entry there; it is held to what has to be true of any.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Prediction
from ddpm.diffusion.objectives import X0, Epsilon, Objective, PosteriorMean, V
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance
from ddpm.diffusion.weighting import P2, SNR, Hybrid, MinSNR, Simple, VariationalBound
from ddpm.doctor.gaussian import Exact, Gaussian, times

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
def exact(label: int | None, betas: tuple[float, ...], steps: tuple[int, ...] | None = None) -> Exact:
    """For one of `DATA`; a table is made once."""
    return Exact(DATA[label], betas, steps)


def _turned(chain: Exact, i: Tensor, x_t: Tensor, x_0: Tensor) -> Tensor:
    """x_t a quarter turn further on the circle from x_0 to eps."""
    angle = torch.atan2(chain.noise, chain.signal)[i, None] + math.pi / 2
    return angle.cos() * x_0 + angle.sin() * chain.eps(i, x_t, x_0)


OBJECTIVES: dict[type, Callable[[Exact, Tensor, Tensor, Tensor], Tensor]] = {
    Epsilon: Exact.eps,
    X0: lambda chain, i, x_t, x_0: x_0,
    V: _turned,
    PosteriorMean: Exact.mean_before,
}
"""(original chain, i, x_t, x_0) -> what the output of the network is to be."""

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
    eps that it stands for; and the bound's term times T, in bits, whose gradient reaches the mean or not.
    """

    def __init__(self, output: Tensor, x_0: Tensor, eps: Tensor, bound: Tensor, bound_of_variance: Tensor):
        self.output = output
        self.x_0 = x_0
        self.eps = eps
        self.bound = bound
        self.bound_of_variance = bound_of_variance


WEIGHTINGS: dict[type, Callable[..., Tensor]] = {
    Simple: lambda weighting, errors: errors.output,
    SNR: lambda weighting, errors: errors.eps,
    MinSNR: lambda weighting, errors: torch.minimum(errors.eps, weighting.gamma * errors.x_0),
    P2: lambda weighting, errors: errors.eps / (weighting.k + errors.eps / errors.x_0) ** weighting.gamma,
    VariationalBound: lambda weighting, errors: errors.bound,
    Hybrid: lambda weighting, errors: errors.output + weighting.bound_share * errors.bound_of_variance,
}
"""(weighting, errors) -> the loss, [N]."""


def output_for(
    objective: Objective, schedule: NoiseSchedule, chain: Exact, i: Tensor, x_t: Tensor, x_0: Tensor
) -> Tensor:
    """The right output for x_t [N, D] at the steps `i` of the original chain, if x_0 were that."""
    meaning = OBJECTIVES.get(type(objective))
    if meaning is not None:
        return meaning(chain, i, x_t, x_0)
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


class GaussianNetwork:
    """The best network there is: its output is E[what the objective asks for | x_t], which is affine in x_t.

    Args:
        objective: says what is asked for.
        schedule: the original chain.
        variance: whether `VARIANCE_OUTPUT` follows the prediction.
    """

    def __init__(self, objective: Objective, schedule: NoiseSchedule, variance: Variance):
        self.variance = variance
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

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        (label,) = {None} if labels is None else set(labels.tolist())
        gain, offset = self._affine[label]
        output = as_images(times(gain[t], x_t.flatten(1)) + offset[t])
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
