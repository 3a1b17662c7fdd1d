"""The figures in a metrics.json: values under short names, their intervals, and what drawing has cost."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.app.measuring.measurements import MEASURED
from ddpm.app.run_directory import COMPARED
from ddpm.errors import UsageError

MOST_BYTES = 1 << 24

DEEP = ("*", "*/*", "*/*/*")
"""Where in a run's directory evaluations are looked for."""

NOT_IN = {"checkpoints", "averages", "wandb", "samples", "figures", "pieces", COMPARED}
"""Folders of a run that hold none, or those of other runs too."""

MOST_EVALUATIONS = 100
"""Of a run."""

OWN_NAME = re.compile(r"([a-z_]+?)\d+k?_.+")
"""The name of a value of samples, fid50k_train_inception_ema_ddim50: what is measured, and of how many."""

BITS = "bits_per_dim"

HIGHER_IS_BETTER = ("precision", "recall", "density", "coverage", "is", "own_label")
"""Measures, of all that evaluate.py knows; the others are distances and bits."""


COLOURS = ("samples/mean_", "samples/deviation_")
"""How names begin of what training logs of its grids that is no measure of how good they are."""


@dataclass(frozen=True)
class Figure:
    """A value that was measured.

    Attributes:
        value: finite.
        interval: in which it lies with probability 0.95, or None.
        measure: what was measured: fid, precision.
        nfe: network evaluations of an image that was drawn; None where none was.
        seconds_per_image: that drawing one took a device; None where that is not known.
        name: the full one, fid50k_train_inception_ema_ddim50.
    """

    value: float
    interval: tuple[float, float] | None = None
    measure: str = ""
    nfe: int | None = None
    seconds_per_image: float | None = None
    name: str = ""

    @property
    def higher_is_better(self) -> bool:
        return self.measure in HIGHER_IS_BETTER

    @property
    def rank(self) -> float:
        """The smaller, the better. `nearest` is best at 1: samples are as near to training images as new
        ones are.
        """
        if self.measure == "nearest":
            return abs(math.log(self.value)) if self.value > 0 else math.inf
        return -self.value if self.higher_is_better else self.value


def files_in(directory: Path) -> Iterator[Path]:
    """The metrics.json of a directory, and those of directories in it; none that lies outside of it."""
    files = [directory / MEASURED]
    for pattern in DEEP:
        found = sorted(directory.glob(f"{pattern}/{MEASURED}"))
        files += [one for one in found if not NOT_IN & set(one.relative_to(directory).parts)]
    root = directory.resolve()
    for file in files[:MOST_EVALUATIONS]:
        if file.is_file() and file.resolve().is_relative_to(root):
            yield file


def left_in(directory: Path) -> dict[str, Figure]:
    """The figures that evaluate.py has left in a directory; none where it has left none that can be read."""
    try:
        return figures_of(bounded.json_values(directory / MEASURED, MOST_BYTES))
    except UsageError:
        return {}


def figures_of(measured: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures by name: that of their metric, as fd_classifier, or where a metric has several that of
    each, as precision and recall.

    Args:
        measured: what a metrics.json holds.
    """
    found: dict[str, Figure] = {}
    for metric, values in measured.items():
        if not isinstance(values, Mapping):
            continue
        own = {
            match[1]: (key, value)
            for key, value in values.items()
            if isinstance(key, str)
            and (match := OWN_NAME.fullmatch(key))
            and finite(value) is not None
            and isinstance(values.get("of"), Mapping)
        }
        if finite(values.get(BITS)) is not None:
            own[BITS] = (BITS, values[BITS])
        for measure, (name, value) in own.items():
            about = values.get("of") or {}
            nfe = about.get("nfe")
            found[measure if len(own) > 1 else metric] = Figure(
                float(value),
                _interval(values, measure),
                measure,
                nfe if isinstance(nfe, int) else None,
                finite(about.get("seconds_per_image")),
                name,
            )
    return found


def _interval(values: Mapping[str, Any], measure: str) -> tuple[float, float] | None:
    ends = values.get(f"{measure}_interval", values.get("interval"))
    if isinstance(ends, list) and len(ends) == 2 and None not in map(finite, ends):
        return float(ends[0]), float(ends[1])
    error, value = finite(values.get("standard_error")), finite(values.get(measure))
    return None if error is None or value is None else (value - 1.96 * error, value + 1.96 * error)


def shown(figure: Figure) -> str:
    """3.17 [3.1, 3.2]."""
    ends = figure.interval
    return f"{figure.value:.4g}" + (f" [{ends[0]:.4g}, {ends[1]:.4g}]" if ends is not None else "")


def finite(value: Any) -> float | None:
    """A number as it is; None for all else."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None
