"""Losses as a run computes them, in single precision: finite, with their gradients, and as in double.

At both ends and in the middle of short and long chains, on images of 8 bits, for a network whose prediction
is 0, as it is before training, or noise.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.weighting import Noised, Weighting
from ddpm.doctor.case import Case
from ddpm.doctor.combinations import Combination

LENGTHS = (10, 1000, 4000)
"""Steps of the chains. A schedule that states its betas for long ones refuses the shortest."""

SHAPE = (1, 8, 8)

CPU = torch.device("cpu")

CLOSE = 5e-5
"""Allowed of a loss, relative to it, and of a gradient, relative to its largest value."""


def allowed(schedule: NoiseSchedule) -> float:
    """The same on a schedule: more where its first step is so fine that the rounding of x_0 is more beside
    its standard deviation, as at the clean end of schedule=flow.
    """
    first = math.sqrt(1 - float(schedule.alphas_cumprod[0]))
    return max(CLOSE, torch.finfo(torch.float32).eps / first)


def cases(combinations: Sequence[Combination]) -> Iterator[Case]:
    for parts in combinations:
        subject = " ".join(str(parts[g]) for g in ("schedule", "objective", "variance", "weighting"))
        parametrization = Parametrization(parts["objective"].small(), parts["variance"].small())
        for length in LENGTHS:
            try:
                schedule = parts["schedule"].small(num_timesteps=length)
            except ValueError:
                continue
            compared, text = "loss and gradient in float32 with float64, finite", f"{subject} at T = {length}"
            measured = partial(loss_error, schedule, parametrization, parts["weighting"].small())
            yield Case("precision", str(parts["weighting"]), compared, text, measured, allowed(schedule))


def loss_error(
    schedule: NoiseSchedule,
    parametrization: Parametrization,
    weighting: Weighting,
    device: torch.device = CPU,
) -> float:
    """Of losses and gradients in float32 on a device, against float64 on the CPU; inf where not finite."""
    last = schedule.num_timesteps - 1
    t = torch.tensor(sorted({0, min(1, last), schedule.num_timesteps // 2, max(last - 1, 0), last}))
    generator = torch.Generator().manual_seed(13)
    x_0 = torch.randint(0, 256, (len(t), *SHAPE), generator=generator) / 127.5 - 1
    x_0[:, :, 0], x_0[:, :, 1] = -1, 1  # the levels that reach to infinity
    eps = torch.randn(x_0.shape, generator=generator)
    noised = Noised(x_0, t, eps, q_sample(schedule, x_0, t, eps))
    output = torch.randn(
        len(t), SHAPE[0] * (1 + parametrization.variance.outputs), *SHAPE[1:], generator=generator
    )
    at_first = output.clone()
    at_first[:, : SHAPE[0]] = 0
    worst = 0.0
    for given in (at_first, output):
        found, expected = (
            _with_gradient(
                weighting,
                parametrization,
                schedule,
                Noised(*(part if part is t else part.to(dtype) for part in noised)),
                given.to(dtype),
                where,
            )
            for dtype, where in ((torch.float32, device), (torch.float64, CPU))
        )
        for ours, theirs in zip(found, expected, strict=True):
            error = (ours - theirs).abs() / theirs.abs().amax(1, keepdim=True).clamp(min=1e-30)
            worst = max(worst, float(error.max()) if bool(torch.isfinite(error).all()) else math.inf)
    return worst


def _with_gradient(
    weighting: Weighting,
    parametrization: Parametrization,
    schedule: NoiseSchedule,
    noised: Noised,
    output: Tensor,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The losses [B, 1], and their derivatives [B, N] by the output: float64 on the CPU."""
    output = output.to(device).requires_grad_()
    noised = Noised(*(part.to(device) for part in noised))
    losses = weighting.losses(parametrization, schedule, noised, output)
    (gradient,) = torch.autograd.grad(losses.sum(), output)
    return losses.detach().cpu().double()[:, None], gradient.cpu().double().flatten(1)
