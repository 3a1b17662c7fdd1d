"""What a noise schedule is: alpha-bar, log SNR and beta over t, and how the loss weighs each t."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ddpm.diffusion import NoiseSchedule, Parametrization
from ddpm.diffusion.variances import FixedLarge
from ddpm.diffusion.weighting import Noised, Weighting
from ddpm.sampling.figures.curves import legend, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEFT, ROOMY = 0.7, 6.5
"""Inches that the texts on the left of a panel take, and of a figure that has room for them."""

SMALL_ERROR = 1e-4
"""Of the network, by which its loss is weighed."""


class Process(NamedTuple):
    """What is drawn of a run.

    Attributes:
        label: in the legend.
        schedule: of the forward process.
        parametrization: what the network predicts.
        weighting: its loss.
    """

    label: str
    schedule: NoiseSchedule
    parametrization: Parametrization
    weighting: Weighting


def weights(schedule: NoiseSchedule, parametrization: Parametrization, weighting: Weighting) -> np.ndarray:
    """How the loss weighs the squared error of eps at each t: float64 [T], NaN where it says nothing of x_0,
    and throughout where an objective or weighting of one's own cannot be asked.

    What the gradient of the loss makes of a small error of the network, whatever the network predicts, in
    terms of the eps that follows from it: L_simple of a network that predicts eps weighs every t with 1.
    Where the variance is learned, a bound's weight is that for the variance beta.

    Args:
        schedule: of T steps.
        parametrization: what the network predicts.
        weighting: the loss.
    """
    try:
        return _weights(schedule, parametrization, weighting)
    except Exception:  # of one's own, which may ask for more than images of a pixel, or lack the error of x_0
        return np.full(schedule.num_timesteps, np.nan)


def _weights(schedule: NoiseSchedule, parametrization: Parametrization, weighting: Weighting) -> np.ndarray:
    num_timesteps = schedule.num_timesteps
    if parametrization.variance.outputs:
        parametrization = parametrization._replace(variance=FixedLarge())
    t = torch.arange(num_timesteps)
    zero = torch.zeros(num_timesteps, 1, 1, 1, dtype=torch.float64)
    with torch.enable_grad():
        error = torch.full_like(zero, SMALL_ERROR).requires_grad_()
        noised = Noised(zero, t, zero, zero)  # of x_0 = 0 without noise every target is 0
        loss = weighting.losses(parametrization, schedule, noised, error).sum()
        (slope,) = torch.autograd.grad(loss, error)
    of_output = slope.flatten() / (2 * SMALL_ERROR)
    one = torch.ones(num_timesteps, dtype=torch.float64)
    of_x_0 = of_output / parametrization.objective.x_0_error(schedule, t, one)
    found: np.ndarray = (of_x_0 / schedule.snr).numpy()
    return np.where(np.isfinite(found), found, np.nan)


def draw(processes: Sequence[Process], *, width: float) -> "Figure":
    """Four panels; several runs lie over each other.

    Args:
        processes: of the runs.
        width: inches.
    """
    from matplotlib.figure import Figure

    lengths = {process.schedule.num_timesteps for process in processes}
    # what places panels by the texts around them takes three times as long as all the rest: it is left to
    # legends, and to panels that have no room
    is_roomy = len(processes) == 1 and width >= ROOMY
    figure = Figure(figsize=(width, 0.68 * width), layout=None if is_roomy else "constrained")
    if is_roomy:
        edge, top = LEFT / width, 0.1 / (0.68 * width)
        figure.subplots_adjust(edge, 0.45 / (0.68 * width), 1 - 0.1 / width, 1 - top, wspace=2.6 * edge)
    (alpha_bar, log_snr), (beta, weight) = figure.subplots(2, 2, sharex=True)
    for index, process in enumerate(processes):
        schedule, style = process.schedule, look(index)
        t = np.arange(schedule.num_timesteps)
        x = t if len(lengths) == 1 else t / max(1, schedule.num_timesteps - 1)
        with np.errstate(divide="ignore"):
            log_of_snr = np.log(schedule.snr.numpy())
        alpha_bar.plot(x, schedule.alphas_cumprod, label=process.label, **style)
        log_snr.plot(x, np.where(np.isfinite(log_of_snr), log_of_snr, np.nan), **style)
        beta.plot(x, schedule.betas, **style)
        weight.plot(x, weights(schedule, process.parametrization, process.weighting), **style)
    alpha_bar.set(ylabel=r"$\bar{\alpha}_t$", ylim=(-0.03, 1.03))
    log_snr.set_ylabel(r"$\log\,\mathrm{SNR}_t$")
    beta.set(ylabel=r"$\beta_t$", yscale="log")
    weight.set_ylabel(r"weight of $\Vert\epsilon - \hat{\epsilon}\Vert^2$ in the loss")
    shown = np.concatenate([line.get_ydata() for line in weight.get_lines()])
    shown = shown[np.isfinite(shown) & (shown > 0)]
    if len(shown) and shown.max() > 10 * shown.min():
        weight.set_yscale("log")
    elif len(shown):
        weight.set_ylim(0, 1.3 * shown.max())
    for panel in (beta, weight):
        panel.set_xlabel("$t$" if len(lengths) == 1 else "$t\\,/\\,(T-1)$")
    legend(figure, alpha_bar, len(processes))
    return figure
