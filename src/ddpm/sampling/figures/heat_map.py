"""A heat map of the loss: timesteps above each other, and how it changes as training goes on."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN_AS_LOG = 5.0
"""Greatest loss over the smallest, from which on colours follow the logarithm."""


def draw(losses: np.ndarray, steps: np.ndarray, timesteps: np.ndarray, *, width: float) -> "Figure":
    """Colours from the mean loss of each part of the chain in each part of the training.

    Args:
        losses: float [K, M] of K parts of the training and M of the chain, NaN where there is none.
        steps: [K + 1], the optimizer steps at which the parts of the training begin, and where the last ends.
        timesteps: [M + 1], likewise of the chain.
        width: inches.
    """
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    height = 0.5 * width
    figure = Figure(figsize=(width, height))
    bottom, top = 0.45 / height, 1 - 0.55 / height
    panel = figure.add_axes((0.65 / width, bottom, 1 - 1.65 / width, top))
    beside = figure.add_axes((1 - 0.9 / width, bottom, 0.12 / width, top))
    known = losses[np.isfinite(losses)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    is_log = low > 0 and high > SEEN_AS_LOG * low
    norm = LogNorm(low, high) if is_log else Normalize(low, high if high > low else low + 1)
    colours = colormaps["viridis"].with_extremes(bad="0.8")
    shown = panel.pcolormesh(steps, timesteps, np.ma.masked_invalid(losses.T), norm=norm, cmap=colours)
    panel.set(xlabel="optimizer steps", ylabel="$t$")
    panel.spines[:].set_visible(False)
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar = figure.colorbar(shown, cax=beside, label="mean loss")
    if is_log:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_visible(False)
    return figure
