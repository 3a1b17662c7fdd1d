"""Where samples come from: their ways from x_T to x_0 in the plane in which the data differs most."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.samplers import Trajectory, evenly_spread
from ddpm.sampling.figures import to_uint8
from ddpm.sampling.figures.curves import look
from ddpm.sampling.figures.layout import GAP, LINE, MARGIN, Sheet, cell_size, pixels, shortened, snapped
from ddpm.sampling.figures.style import SMALL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from sklearn.decomposition import PCA

MOST_POINTS = 3000
"""Images of the data that are shown as points."""


def plane(data: np.ndarray) -> "PCA":
    """The plane of the first two principal components of images, float32 [N, D] with N and D at least 2."""
    from sklearn.decomposition import PCA

    return PCA(2, random_state=0).fit(data)


def draw(
    trajectory: Trajectory,
    images: Tensor,
    data: Tensor,
    names: Sequence[str],
    *,
    steps: int,
    width: float,
    dpi: float,
) -> "Figure":
    """The plane with the data and a way for each sample, and beside it each sample as a strip of film.

    Args:
        trajectory: of all steps, or of many.
        images: what came of them, float32 [N, C, H, W] in [-1, 1].
        data: images that were trained on, float32 [M, C, H, W] in [-1, 1].
        names: of the samples' classes, "" for none.
        steps: columns of the film, which are dots on the ways.
        width: inches.
        dpi: pixels an inch.
    """
    found = plane(data.flatten(1).numpy())
    timesteps = list(trajectory.x_t)
    shown = evenly_spread(timesteps, steps - 1)
    x_t = torch.stack([trajectory.x_t[t].cpu() for t in timesteps] + [images.cpu()])  # [K + 1, N, C, H, W]
    flat = x_t.flatten(2)
    ways = found.transform(flat.flatten(0, 1).numpy()).reshape(*flat.shape[:2], 2)
    marked = [*(timesteps.index(t) for t in shown), len(timesteps)]

    side = 0.46 * width
    left = side + 0.2
    columns = len(marked)
    size = cell_size((width - left - MARGIN) / columns - GAP, images.shape[1:], dpi)
    pitch = snapped(size[0] + GAP, dpi), snapped(size[1] + GAP, dpi)
    named = LINE if any(names) else 0.0
    each = pitch[0] + 0.06 + named
    film = LINE + 0.06 + len(images) * each
    sheet = Sheet(width, max(side, film + MARGIN), dpi)
    height = sheet.figure.get_figheight()
    box = (0.52 / width, 0.42 / height, (side - 0.56) / width, (height - 0.46) / height)
    panel = sheet.figure.add_axes(box)
    _draw_plane(panel, found.transform(data.flatten(1).numpy()), ways, marked)

    top = (height - film) / 2
    for column, text in enumerate([f"$t={shown[0]}$", *map(str, shown[1:]), "$x_0$"]):
        sheet.write(text, left + column * pitch[1] + size[1] / 2, top + LINE / 2, fontsize=SMALL)
    for i, name in enumerate(names):
        y = top + LINE + 0.06 + i * each
        if named:
            sheet.write(shortened(name), left, y + LINE / 2 - 0.02, ha="left", fontsize=SMALL)
        y = snapped(y + named, dpi)
        sheet.line([left - 0.07] * 2, [y, y + size[0]], color=look(i)["color"], linewidth=2.5)
        for column, image in enumerate(pixels(to_uint8(x_t[marked, i]))):
            sheet.place(image, left + column * pitch[1], y, size)
    return sheet.figure


def _draw_plane(panel: "Axes", data: np.ndarray, ways: np.ndarray, marked: Sequence[int]) -> None:
    """Data [M, 2] as points, and ways [K, N, 2] with dots at some of their steps."""
    ink = panel.xaxis.label.get_color()
    points: dict[str, Any] = {"color": "0.6", "linewidths": 0}
    first: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 4.5}
    first["markerfacecolor"] = panel.get_facecolor()
    last: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 9, "markeredgewidth": 0}
    panel.scatter(data[:, 0], data[:, 1], s=3, alpha=0.4, rasterized=True, **points)
    for i in range(ways.shape[1]):
        colour = look(i)["color"]
        panel.plot(*ways[:, i].T, color=colour, linewidth=0.9)
        panel.plot(*ways[marked[:-1], i].T, "o", color=colour, markersize=2.2)
        panel.plot(*ways[0, i], color=colour, **first)
        panel.plot(*ways[-1, i], color=colour, **last)
    panel.scatter([], [], s=8, label="data", **points)
    panel.plot([], [], color=ink, label="$x_T$", **first)
    panel.plot([], [], color=ink, label="$x_0$", **last)
    panel.legend(loc="upper left", handletextpad=0.1, borderpad=0.1, borderaxespad=0.1, handlelength=1.4)
    panel.set(xlabel="first principal component", ylabel="second principal component")
    panel.set_aspect("equal", adjustable="datalim")
    panel.locator_params(nbins=5)
