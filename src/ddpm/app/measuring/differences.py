"""Which differences of runs mean something: each pair of runs by each value, in numbers and in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ddpm.app.measuring.figures import Figure, figures_of, shown
from ddpm.evaluation.kept import Kept
from ddpm.evaluation.measures.paired import Difference, holm

CERTAIN = 0.05
"""A difference means something where its p value, counted among all pairs, is below."""

WITHOUT = (
    "no spread is known for its differences; compare the values as they are, or draw again with another seed"
)


@dataclass(frozen=True)
class Pair:
    """Two runs by one value.

    Attributes:
        one: the name of a run.
        other: that of another.
        difference: of the first from the second.
        adjusted: its p value as it counts among all pairs (Holm 1979).
        higher_is_better: whether more is better.
    """

    one: str
    other: str
    difference: Difference
    adjusted: float
    higher_is_better: bool

    @property
    def is_meaningful(self) -> bool:
        return self.adjusted < CERTAIN

    @property
    def better(self) -> str | None:
        """The run that is better, beyond chance."""
        if not self.is_meaningful:
            return None
        return self.one if (self.difference.value > 0) == self.higher_is_better else self.other

    def values(self) -> dict[str, Any]:
        """Plain containers, for metrics.json."""
        found = self.difference
        return {
            "one": self.one,
            "other": self.other,
            "difference": found.value,
            "interval": [found.low, found.high],
            "p_value": found.p_value,
            "p_value_adjusted": self.adjusted,
            "meaningful": self.is_meaningful,
            "better": self.better,
        }

    def sentence(self, label: str) -> str:
        """A is better than B by 1.2 [0.8, 1.6] in fid."""
        found = self.difference
        if self.better is None:
            if math.isnan(found.p_value):
                return f"{self.one} and {self.other} cannot be told apart in {label}: too few images"
            size = f"{found.value:.4g} [{found.low:.4g}, {found.high:.4g}]"
            by_itself = found.low > 0 or found.high < 0  # and not among all pairs
            several = ", as several pairs are compared" if by_itself else ""
            return f"{self.one} and {self.other} do not differ in {label} beyond chance{several}: {size}"
        sign = 1 if found.value > 0 else -1
        ends = sorted((sign * found.low, sign * found.high))
        worse = self.other if self.better == self.one else self.one
        size = f"{abs(found.value):.4g} [{ends[0]:.4g}, {ends[1]:.4g}]"
        return f"{self.better} is better than {worse} by {size} in {label}"


@dataclass(frozen=True)
class Compared:
    """One value of all runs.

    Attributes:
        figures: by the name of the run; none for one that has no such value.
        pairs: of runs; none where differences have no known spread.
    """

    figures: Mapping[str, Figure]
    pairs: Sequence[Pair]

    def values(self) -> dict[str, Any]:
        """Plain containers, for metrics.json."""
        found: dict[str, Any] = {"pairs": [pair.values() for pair in self.pairs]}
        return found if self.pairs else {**found, "why": WITHOUT}


def compared(measured: Mapping[str, Mapping[str, Any]], kept: Mapping[str, Kept]) -> dict[str, Compared]:
    """Every value by its name, as fd_classifier, precision; a metric without a single value by the metric's.

    Args:
        measured: what a metrics.json holds, by the name of the run.
        kept: of the same runs.
    """
    first = next(iter(measured.values()))
    found: dict[str, Compared] = {}
    for metric in first["settings"]["metrics"]:
        by_run = {run: figures_of({metric: values.get(metric)}) for run, values in measured.items()}
        labels = dict.fromkeys(label for figures in by_run.values() for label in figures) or {metric: None}
        for label in labels:
            figures = {run: own[label] for run, own in by_run.items() if label in own}
            name = label if label not in found else f"{metric}.{label}"
            found[name] = Compared(figures, _pairs(metric, figures, kept))
    return found


def _pairs(metric: str, figures: Mapping[str, Figure], kept: Mapping[str, Kept]) -> list[Pair]:
    """Every two runs by one value; none where not all have kept what it is made of."""
    evidence = {run: kept[run].evidence.get((metric, figure.measure)) for run, figure in figures.items()}
    there = {run: one for run, one in evidence.items() if one is not None}
    if len(there) < len(kept):
        return []
    pairs = list(combinations(there, 2))
    differences = [there[one].minus(there[other]) for one, other in pairs]
    adjusted = holm([difference.p_value for difference in differences])
    higher = next(iter(figures.values())).higher_is_better
    return [
        Pair(one, other, difference, p_value, higher)
        for (one, other), difference, p_value in zip(pairs, differences, adjusted, strict=True)
    ]


def lines(found: Mapping[str, Compared], runs: Sequence[str]) -> list[str]:
    """A table of the values, a row a run; then each pair by each value in words."""
    columns = {label: value for label, value in found.items() if value.figures}
    rows = [["run", *columns]]
    for run in runs:
        cells = (value.figures.get(run) for value in columns.values())
        rows.append([run, *("" if figure is None else shown(figure) for figure in cells)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    told = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    for label, value in found.items():
        told += [pair.sentence(label) for pair in value.pairs]
        if not value.pairs:
            told.append(f"{label}: {WITHOUT}")
    return told
