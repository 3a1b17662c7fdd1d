"""A picture of a sweep of evaluate.py: what samples came to, by network evaluations and by seconds."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ddpm.app.measuring.figures import Figure
from ddpm.app.sweeps.record import Job, differing, figures_of
from ddpm.runtime.writing import whole

NAME = "quality.png"

MOST_IN_WORDS = 6
"""Jobs that are named."""

MARKERS = "os^Dv<>ph*"

SHORT, LONG = 0.7, 4
"""Powers of ten that an axis spans: below the first it has too few of 1, 2, 5 times one, from the second on
too many.
"""


class Line(NamedTuple):
    """Jobs that differ in one setting only, by which the number of network evaluations grows.

    Attributes:
        label: what sets them apart from the other lines.
        jobs: by network evaluations.
    """

    label: str
    jobs: list[Job]


def drawn_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Those that have finished and measured samples that they drew."""
    return [job for job in jobs if job.is_done and _drawn(job)]


def named(jobs: Sequence[Job]) -> str:
    """job 3 (failed), job 4 (running)."""
    words = [f"job {job.number} ({_why(job)})" for job in jobs]
    more = len(words) - MOST_IN_WORDS
    return ", ".join(words[:MOST_IN_WORDS] + ([f"and {more} more"] if more > 0 else []))


def draw(jobs: Sequence[Job], path: Path) -> None:
    """Write the picture: a row a measure, with a line for each setting but that of the steps.

    Args:
        jobs: of the sweep; of those that are not drawn the picture says so.
        path: of the file, a png.

    Raises:
        OSError: where it cannot be written.
    """
    from matplotlib.figure import Figure as Canvas  # a second that nothing else needs

    drawn = drawn_jobs(jobs)
    lines = lines_of(drawn)
    names = [name for name in figures_of(drawn) if any(_has(job, name) for job in drawn)]
    canvas = Canvas(figsize=(12, 0.8 + 4.2 * len(names)), layout="constrained")
    panels = canvas.subplots(len(names), 2, squeeze=False)
    for name, (by_nfe, by_time) in zip(names, panels, strict=True):
        shown = [job.figures[name] for job in drawn if _has(job, name)]
        for index, line in enumerate(lines):
            style = {"color": f"C{index % 10}", "marker": MARKERS[index // 10 % len(MARKERS)]}
            own = [job.figures[name] for job in line.jobs if _has(job, name)]
            timed = [figure for figure in own if figure.seconds_per_image is not None]
            _plot(by_nfe, [float(figure.nfe or 0) for figure in own], own, line.label, style)
            _plot(by_time, [figure.seconds_per_image or 0.0 for figure in timed], timed, line.label, style)
        if not any(figure.seconds_per_image is not None for figure in shown):
            by_time.text(0.5, 0.5, "no times are known", ha="center", transform=by_time.transAxes)
        positive = all(figure.value > 0 for figure in shown)
        scale = "log" if positive and not shown[0].higher_is_better else "linear"
        for panel, label in ((by_nfe, "network evaluations"), (by_time, "seconds of a device")):
            panel.set(xlabel=f"{label} per image", ylabel=name, xscale="log", yscale=scale)
            panel.grid(alpha=0.3)
            for axis in (panel.xaxis, panel.yaxis):
                if axis.get_scale() == "log":
                    _number_plainly(axis)
    if len(lines) > 1:
        panels[0][0].legend(fontsize="small", ncols=1 + len(lines) // 12)
    left_out = [job for job in jobs if job not in drawn]
    words = "bars are intervals of probability 0.95"
    canvas.suptitle(f"{words}; left out: {named(left_out)}" if left_out else words, fontsize="medium")
    with whole(path) as temporary:
        canvas.savefig(temporary, dpi=110)


def lines_of(jobs: Sequence[Job]) -> list[Line]:
    """Jobs in lines, along the setting by which the number of network evaluations grows, whatever it is; each
    in a line of its own where there is none.
    """
    apart = differing(jobs)
    along = _steps_key(jobs, apart)
    lines: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        others = tuple((key, value) for key, value in apart[job.number].items() if key != along)
        lines.setdefault(others, []).append(job)
    return [
        Line(
            " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in others),
            sorted(own, key=lambda job: _nfe(job)),
        )
        for others, own in lines.items()
    ]


def _steps_key(jobs: Sequence[Job], apart: Mapping[int, Mapping[str, str]]) -> str | None:
    """The setting in numbers with which, all others being equal, network evaluations always grow: of several
    the one with most values.
    """
    found: dict[str, int] = {}
    for key in dict.fromkeys(key for own in apart.values() for key in own):
        groups: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
        for job in jobs:
            own = apart[job.number]
            others = tuple((name, value) for name, value in own.items() if name != key)
            value = _number(own.get(key))
            if value is None:
                break
            groups.setdefault(others, []).append((value, _nfe(job)))
        else:
            grows = [
                all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(group))
                for group in map(sorted, groups.values())
            ]
            if all(grows) and len(groups) < len(jobs):
                found[key] = len({value for group in groups.values() for value, _ in group})
    return max(found, key=lambda key: found[key], default=None)


def _plot(panel: Any, x: list[float], figures: list[Figure], label: str, style: dict[str, str]) -> None:
    """A line with a bar at each point that has an interval."""
    if not figures:
        return
    values = [figure.value for figure in figures]
    ends = [figure.interval or (figure.value, figure.value) for figure in figures]
    bars = [
        [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
        [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
    ]
    panel.errorbar(x, values, bars, label=label, capsize=3, markersize=5, **style)


def _number_plainly(axis: Any) -> None:
    """Write 5, 10, 20, 50 beside a logarithmic axis, in place of powers of ten, and of a short part of one
    whatever is even: 3.2, 3.4.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades < SHORT:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < LONG else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _drawn(job: Job) -> list[str]:
    """The names of its figures of samples."""
    return [name for name in job.figures if _has(job, name)]


def _has(job: Job, name: str) -> bool:
    return name in job.figures and bool(job.figures[name].nfe)


def _nfe(job: Job) -> int:
    return job.figures[_drawn(job)[0]].nfe or 0


def _why(job: Job) -> str:
    return "no samples measured" if job.is_done else job.status


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
