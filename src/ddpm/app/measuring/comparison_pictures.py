"""Pictures of runs that are compared: their samples from the same noise, and their values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ddpm.app.measuring.differences import Compared
from ddpm.app.measuring.figures import Figure
from ddpm.evaluation.kept import Kept
from ddpm.runtime.writing import whole, write_whole
from ddpm.sampling.captions import legible
from ddpm.sampling.figures import png, table

SAMPLES = "compare.png"
VALUES = "values.png"

COLUMNS = 3
"""Values in a row of the picture."""

LONGEST = 30
"""Letters of a name that are shown beside values."""


def draw_samples(kept: Mapping[str, Kept], classes: Sequence[str] | None, path: Path) -> None:
    """A row a run: the same column started from the same noise.

    Args:
        kept: by the name of the run; of those without samples there is no row.
        classes: names of the classes, or None.
        path: of the picture.
    """
    rows = {run: one.images for run, one in kept.items() if one.images is not None}
    if not rows:
        return
    asked = next((one.classes for one in kept.values() if one.classes is not None), None)
    n = len(next(iter(rows.values())))
    headings = [f"sample {i}" for i in range(n)]
    if asked is not None and classes is not None and all(one.classes is not None for one in kept.values()):
        headings = [legible(classes)[label] for label in asked.tolist()]
    cells = torch.from_numpy(np.stack(list(rows.values())))
    write_whole(path, png(table(cells, headings=headings, captions=list(rows))))


def draw_values(found: Mapping[str, Compared], runs: Sequence[str], path: Path) -> None:
    """A panel a value: that of each run with the interval in which it lies.

    Args:
        found: by the name of the value.
        runs: their names, from above.
        path: of the picture.
    """
    from matplotlib.figure import Figure as Canvas  # a second that nothing else needs

    panels = {label: value for label, value in found.items() if value.figures}
    if not panels:
        return
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    canvas = Canvas(
        figsize=(1.6 + 3.4 * columns, rows * (1.1 + 0.32 * len(runs)) + 0.4), layout="constrained"
    )
    axes = canvas.subplots(rows, columns, squeeze=False, sharey=True)
    for panel, (label, value) in zip(axes.flat, panels.items(), strict=False):
        for y, run in enumerate(runs):
            if (figure := value.figures.get(run)) is None:
                continue
            low, high = figure.interval or (figure.value, figure.value)
            ends = [[max(0.0, figure.value - low)], [max(0.0, high - figure.value)]]
            panel.errorbar(figure.value, y, xerr=ends, fmt="o", color=f"C{y % 10}", capsize=4)
        panel.set_title(f"{label} ({_best(next(iter(value.figures.values())))})", fontsize="medium")
        panel.grid(axis="x", alpha=0.3)
        panel.set_yticks(range(len(runs)), [_end(run) for run in runs])
        panel.set_ylim(len(runs) - 0.5, -0.5)
    for panel in axes.flat[len(panels) :]:
        panel.set_axis_off()
    canvas.supxlabel("bars are intervals of probability 0.95, of each run by itself", fontsize="small")
    with whole(path) as temporary:
        canvas.savefig(temporary, dpi=110)


def _end(run: str) -> str:
    """The end of a long name: names begin with a date, and what sets runs apart comes behind it."""
    return run if len(run) <= LONGEST else f"…{run[1 - LONGEST :]}"


def _best(figure: Figure) -> str:
    if figure.measure == "nearest":
        return "best at 1"
    return "higher is better" if figure.higher_is_better else "lower is better"
