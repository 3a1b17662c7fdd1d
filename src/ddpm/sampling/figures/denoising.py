"""How samples come about: x_t on its way from noise, and beneath it the x_0 that is predicted there."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm.diffusion.samplers import Trajectory
from ddpm.sampling.figures import to_uint8
from ddpm.sampling.figures.film import Film, Moment
from ddpm.sampling.figures.layout import Group, at, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

X_T, X_0, PREDICTED = "$x_t$", "$x_0$", r"$\hat{x}_0$"


def draw(
    trajectory: Trajectory, images: Tensor, names: Sequence[str], *, width: float, dpi: float
) -> "Figure":
    """Two rows a sample, from noise on the left to the sample on the right.

    Args:
        trajectory: of the steps that are shown.
        images: what came of them, float32 [N, C, H, W] in [-1, 1].
        names: of the samples' classes, "" for none.
        width: inches.
        dpi: pixels an inch.
    """
    timesteps = list(trajectory.x_t)
    x_t, x_0 = (_stacked(kept) for kept in (trajectory.x_t, trajectory.x_0))
    last = to_uint8(images.cpu())
    groups = [
        Group(name, [(X_T, torch.cat([x_t[:, i], last[i : i + 1]])), (PREDICTED, x_0[:, i])])
        for i, name in enumerate(names)
    ]
    return table(groups, [("$t$", [*at(timesteps), X_0])], width=width, dpi=dpi).figure


def film(trajectory: Trajectory, images: Tensor, *, width: float, dpi: float) -> Film:
    """The same as an animation: samples side by side, a frame a step and one for what came of them.

    Arguments as of `draw`.
    """
    last = to_uint8(images.cpu())
    moments = [
        Moment(f"$t = {t}$", "", [to_uint8(trajectory.x_t[t].cpu()), to_uint8(trajectory.x_0[t].cpu())])
        for t in trajectory.x_t
    ]
    return Film([*moments, Moment(X_0, "", [last, last])], [X_T, PREDICTED], width=width, dpi=dpi)


def _stacked(kept: dict[int, Tensor]) -> Tensor:
    """uint8 [K, N, C, H, W] of the steps that were kept."""
    return torch.stack([to_uint8(value.cpu()) for value in kept.values()])
