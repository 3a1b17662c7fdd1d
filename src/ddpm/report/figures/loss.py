"""How training went: loss on training and held-out images by step, and over t."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.condition import Condition
from ddpm.diffusion.process import evenly_spaced
from ddpm.random import Purpose, Stream
from ddpm.sampling.figures.curves import legend, look, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpm.training.module import DDPM

TRAINING, VALIDATION = "train/loss", "val/loss"

SMOOTHED_OVER = 0.02
"""Of all steps: the deviation of the Gaussian by which losses are averaged."""

POINTS = 25
"""Timesteps at which the loss is computed."""

Scale = Literal["log", "linear"]


class ByT(NamedTuple):
    """The loss over t: timesteps, and mean and standard error there, each [K]."""

    t: np.ndarray
    mean: np.ndarray
    error: np.ndarray


class Curves(NamedTuple):
    """What is drawn of a run.

    Attributes:
        label: in the legend.
        training, validation: steps and losses there, each float64 [2, K].
        by_t: of the averaged weights at the end, or None.
    """

    label: str
    training: np.ndarray
    validation: np.ndarray
    by_t: ByT | None = None


def curve(rows: Mapping[int, Mapping[str, Any]], name: str) -> np.ndarray:
    """The finite values of a metric by step, float64 [2, K].

    Args:
        rows: of metrics.csv, by step.
        name: of the metric.
    """
    found = [(step, _number(rows[step].get(name))) for step in sorted(rows)]
    kept = [(step, value) for step, value in found if np.isfinite(value)]
    return np.array(kept, np.float64).reshape(-1, 2).T


def smoothed(steps: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Means around each step, weighed by a Gaussian: float64 [K]. All [K]."""
    deviation = SMOOTHED_OVER * (steps[-1] - steps[0]) if len(steps) > 1 else 0.0
    if deviation == 0:
        return losses
    found = np.empty_like(losses)
    for i, step in enumerate(steps):  # only what is near counts, and a long run has many rows
        first, last = np.searchsorted(steps, (step - 4 * deviation, step + 4 * deviation))
        near = np.exp(-0.5 * ((steps[first : last + 1] - step) / deviation) ** 2)
        found[i] = near @ losses[first : last + 1] / near.sum()
    return found


@torch.no_grad()
def by_t(
    module: "DDPM",
    x_0: Tensor,
    labels: Tensor | None,
    condition: Condition | None = None,
    *,
    seed: int = 0,
    points: int = POINTS,
) -> ByT:
    """The run's own loss at some timesteps, of the weights that the module evaluates with.

    Args:
        module: the model.
        x_0: float32 [N, C, H, W] in [-1, 1], on its device.
        labels: int64 [N], or None.
        condition: of each image, or None.
        seed: of the noise.
        points: timesteps, evenly from 0 to T - 1.
    """
    n, num_timesteps = len(x_0), module.schedule.num_timesteps
    timesteps = evenly_spaced(min(points, num_timesteps), num_timesteps - 1)
    eps = Stream(seed, Purpose.FIGURE, x_0.device)
    found = []
    for i, t in enumerate(timesteps.tolist()):
        noise = eps.normal(i, range(n), tuple(x_0.shape[1:]))
        losses = module.losses(x_0, torch.full((n,), t, device=x_0.device), noise, labels, condition)
        found.append(losses.double().cpu().numpy())
    losses_at = np.stack(found)
    error = losses_at.std(1, ddof=1) / n**0.5 if n > 1 else np.zeros(len(losses_at))
    return ByT(timesteps.numpy(), losses_at.mean(1), error)


def draw(curves: Sequence[Curves], *, scale: Scale, width: float) -> "Figure":
    """Curves by step, and a second panel over t where that is known of any run.

    Args:
        curves: of the runs.
        scale: of the losses; linear where one is not above 0, as of a weighting that learns how large they
            are.
        width: inches.
    """
    from matplotlib.figure import Figure

    shown = [losses for run in curves for _, losses in (run.training, run.validation)]
    shown += [run.by_t.mean for run in curves if run.by_t is not None]
    if not all((losses > 0).all() for losses in shown):
        scale = "linear"
    known = [run.by_t for run in curves if run.by_t is not None]
    figure = Figure(figsize=(width, (0.4 if known else 0.55) * width), layout="constrained")
    panels = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    by_step = panels[0]
    for index, run in enumerate(curves):
        style = look(index)
        steps, losses = run.training
        if len(steps):
            by_step.plot(steps, losses, color=style["color"], alpha=0.3, linewidth=0.6)
            by_step.plot(
                steps, smoothed(steps, losses), label=run.label if len(curves) > 1 else "training", **style
            )
        steps, losses = run.validation
        if len(steps):
            marks = {"marker": "o", "markersize": 3, "linestyle": "none" if len(run.training[0]) else "-"}
            by_step.plot(
                steps,
                losses,
                label=_held_out_label(run, len(curves)),
                **{**style, **marks, "markerfacecolor": "none"},
            )
    by_step.set(xlabel="optimizer steps", ylabel="loss", yscale=scale)
    plain(by_step)
    if len(curves) == 1:
        by_step.legend(handlelength=2.2)
    else:
        legend(figure, by_step, len(curves))
    if known:
        over_t = panels[1]
        longest = max(run.t[-1] for run in known)
        for index, run in enumerate(curves):
            if run.by_t is None:
                continue
            t, mean, error = run.by_t
            style = look(index)
            over_t.plot(t, mean, label=run.label, **style)
            low, high = mean - 1.96 * error, mean + 1.96 * error
            floor = mean / 10 if scale == "log" else -np.inf
            over_t.fill_between(t, np.maximum(low, floor), high, color=style["color"], alpha=0.2, linewidth=0)
        over_t.set(xlabel="$t$", ylabel="loss at $t$, held-out", yscale=scale, xlim=(-0.02 * longest, None))
    return figure


def _held_out_label(run: Curves, runs: int) -> str | None:
    """Of its own where there is no line of training that bears the run's name."""
    if runs == 1:
        return "held-out"
    return None if len(run.training[0]) else run.label


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return float("nan")
