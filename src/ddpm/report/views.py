"""What a page shows of entries: plain texts and numbers, in the order of the page."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddpm.errors import UsageError
from ddpm.report import curves as metrics_csv
from ddpm.report import differences
from ddpm.report.curves import SECTIONS, Curve, section
from ddpm.report.differences import LACKING, flat, shown
from ddpm.report.embedding import budget
from ddpm.report.entries import Entry
from ddpm.report.grids import Grid, grids
from ddpm.report.pictures import PART, Pictures, pictures

MOST_RUNS = 256
"""On a page."""

MOST_POINTS = 1500
"""Of a curve, of one run; runs of a comparison share what 5,000 take, and have 120 at least."""

IN_A_TABLE = 20
"""Points of a curve that a table shows."""

LOSS = "val/loss"

Values = dict[str, Any]
"""Of a text with places for them."""


@dataclass(frozen=True)
class Cell:
    """A value of a table.

    Attributes:
        text: as it is shown.
        number: by which it is sorted; None for what is sorted as text.
        low, high: ends of its interval.
        text_key: of a text that is translated, instead of `text`.
    """

    text: str
    number: float | None = None
    low: float | None = None
    high: float | None = None
    text_key: str | None = None


@dataclass(frozen=True)
class Column:
    """A column of the table of runs.

    Attributes:
        key: by which a filter calls it.
        kind: "status", "steps", "setting", "result" or "time".
        text_key: of its heading; None where the heading is the key itself.
        about: the value in that heading.
        cells: a run each.
    """

    key: str
    kind: str
    cells: tuple[Cell, ...]
    text_key: str | None = None
    about: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a summary: a translated heading, and a text or a translated one."""

    heading: str
    text: str = ""
    text_key: str | None = None
    values: Values = field(default_factory=dict)
    is_code: bool = False


@dataclass(frozen=True)
class View:
    """An entry with its curves and grids."""

    entry: Entry
    curves: Mapping[str, Curve]
    grids: tuple[Grid, ...]
    notes: tuple[str, ...]


def views(entries: Sequence[Entry], sweep: Path | None = None) -> tuple[list[View], Pictures]:
    """Entries with what their files hold, and the figures of all. What cannot be read is a note, and the rest
    is there.

    Args:
        entries: of the page.
        sweep: the directory of the sweep that they are of; None for none.
    """
    most = min(MOST_POINTS, max(120, 5000 // max(1, len(entries))))
    room = budget(len(entries))
    figures = pictures([(entry.directory, entry.beside) for entry in entries], sweep, int(PART * room))
    room -= sum(len(one.still.webp) + (len(one.film.webp) if one.film else 0) for one in figures.shown)
    drawn_grids = grids([entry.directory for entry in entries], room)
    found = []
    for place, (entry, (own_grids, lost)) in enumerate(zip(entries, drawn_grids, strict=True)):
        notes = [*entry.notes, *lost, *(said for own, said in figures.lost if own == place)]
        try:
            drawn = metrics_csv.curves(entry.directory, most)
        except UsageError as error:
            drawn, notes = {}, [*notes, str(error)]
        found.append(View(entry, drawn, tuple(own_grids), tuple(notes)))
    return found, figures


def are_of_runs(found: Sequence[View]) -> bool:
    """Whether any of these is a training, or nothing says what they are; samples and evaluations have neither
    curves nor grids over steps.
    """
    if any(view.entry.record or view.curves or view.grids for view in found):
        return True
    configs = [view.entry.config for view in found if view.entry.config]
    return any("optimizer" in config for config in configs) or not (
        configs or any(view.entry.measurements for view in found)
    )


def steps_of(view: View) -> int | None:
    """Completed optimizer steps, as far as anything says."""
    last = [curve.steps[-1] for curve in view.curves.values() if curve.steps]
    return max(last) if last else view.entry.step


def columns(found: Sequence[View], apart: Sequence[Mapping[str, str]]) -> list[Column]:
    """The table of runs: how each ended, what sets it apart, and what came out."""
    keys = list(dict.fromkeys(key for own in apart for key in own))
    steps = Column("step", "steps", tuple(map(_steps, found)), "steps")
    made = [
        Column("status", "status", tuple(_status(view.entry.status) for view in found), "status"),
        *([steps] if any(cell.number is not None for cell in steps.cells) else []),
        *(Column(key, "setting", tuple(_setting(own.get(key, LACKING)) for own in apart)) for key in keys),
    ]
    names = dict.fromkeys(name for view in found for name in view.curves)
    if LOSS in names:
        best = tuple(_point(view.curves[LOSS].lowest if LOSS in view.curves else None) for view in found)
        made.append(Column(f"best {LOSS}", "result", best, "best_of", LOSS))
    results = [name for name in names if section(name) in ("val", "samples")]
    results += [name for name in names if name in ("train/loss", "perf/images_per_second")]
    for name in results:
        last = tuple(_point(view.curves[name].last if name in view.curves else None) for view in found)
        made.append(Column(name, "result", last, "last_of", name))
    for name in dict.fromkeys(one.name for view in found for one in view.entry.measurements):
        made.append(Column(name, "result", tuple(_measured(view.entry, name) for view in found)))
    nfe = tuple(_nfe(view.entry) for view in found)
    if any(cell.number is not None for cell in nfe):
        made.append(Column("nfe", "result", nfe))
    times = tuple(
        Cell(LACKING)
        if view.entry.seconds is None
        else Cell(duration(view.entry.seconds), view.entry.seconds)
        for view in found
    )
    return [*made, Column("time", "time", times, "time")]


def _status(status: str) -> Cell:
    return Cell(status, text_key=f"status_{status.replace(' ', '_')}")


def _steps(view: View) -> Cell:
    step, most = steps_of(view), view.entry.max_steps
    if step is None:
        return Cell(LACKING)
    return Cell(f"{step}/{most}" if most is not None and most > 0 else str(step), step)


def _setting(text: str) -> Cell:
    try:
        return Cell(text, metrics_csv.rounded(float(text)))
    except ValueError:
        return Cell(text)


def _point(point: tuple[int, float] | None) -> Cell:
    return Cell(LACKING) if point is None else Cell(figure(point[1]), metrics_csv.rounded(point[1]))


def _measured(entry: Entry, name: str) -> Cell:
    one = next((one for one in entry.measurements if one.name == name), None)
    if one is None:
        return Cell(LACKING)
    low, high = one.interval or (None, None)
    ends = f" [{figure(low)}, {figure(high)}]" if low is not None and high is not None else ""
    return Cell(f"{figure(one.value)}{ends}", one.value, low, high)


def _nfe(entry: Entry) -> Cell:
    nfe = next((one.nfe for one in entry.measurements if one.nfe is not None), None)
    return Cell(LACKING) if nfe is None else Cell(str(nfe), nfe)


def figure(value: float) -> str:
    """0.0753, 40.4, 12345."""
    return f"{value:.5g}"


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 5 h 12 min."""
    from ddpm.runtime import progress

    return progress.duration(seconds)


@dataclass(frozen=True)
class Chart:
    """A metric of a section: the curve of each run that has it, by the place of the run."""

    name: str
    curves: Mapping[int, Curve]

    @property
    def lost(self) -> int:
        return sum(curve.lost for curve in self.curves.values())

    def some(self) -> list[tuple[int, float | None]]:
        """Points from all over the only curve, for a table."""
        ((_, curve),) = self.curves.items()
        n, k = len(curve.steps), min(len(curve.steps), IN_A_TABLE)
        at = sorted({round(i * (n - 1) / max(1, k - 1)) for i in range(k)})
        return [(curve.steps[i], curve.values[i]) for i in at]


def charts(found: Sequence[View]) -> dict[str, list[Chart]]:
    """Metrics by section, in the order of the sections."""
    names = dict.fromkeys(name for view in found for name in view.curves)
    made: dict[str, list[Chart]] = {}
    for name in names:
        own = {i: view.curves[name] for i, view in enumerate(found) if name in view.curves}
        made.setdefault(section(name), []).append(Chart(name, own))
    return {key: made[key] for key in (*SECTIONS, "other") if key in made}


def summary(view: View) -> list[Row]:
    """The card of a run: what is known of it, and nothing of what is not."""
    entry, record = view.entry, view.entry.record
    rows = []
    step = steps_of(view)
    if step is not None and entry.max_steps is not None and entry.max_steps > 0:
        rows.append(Row("steps", "", "of_steps", {"n": f"{step:,}", "total": f"{entry.max_steps:,}"}))
    elif step is not None:
        rows.append(Row("steps", f"{step:,}"))
    if entry.why:
        rows.append(Row("why", entry.why))
    if isinstance(words := record.get("command"), list) and words:
        rows.append(Row("command", shlex.join(map(str, words)), is_code=True))
    if isinstance(started := record.get("started"), str):
        rows.append(Row("started", started.replace("T", " ", 1)))
    if entry.seconds is not None:
        rows.append(Row("wall_time", duration(entry.seconds)))
    git = record.get("git")
    if isinstance(git, Mapping) and git.get("commit"):
        commit = shown(git["commit"])[:12]
        if git.get("changed"):
            rows.append(Row("commit", "", "changed", {"commit": commit}))
        else:
            rows.append(Row("commit", commit, is_code=True))
    devices = record.get("devices")
    if isinstance(devices, Mapping):
        rows.append(Row("devices", f"{shown(devices.get('number'))} x {shown(devices.get('kind'))}"))
    rows += _texts(record, {"precision": "precision"})
    if isinstance(parameters := record.get("parameters"), int):
        rows.append(Row("parameters", f"{parameters:,}"))
    rows += _of_data(record)
    if isinstance(versions := record.get("versions"), Mapping):
        rows.append(Row("versions", ", ".join(f"{name} {shown(own)}" for name, own in versions.items())))
    for heading in ("starts", "rollbacks"):
        if isinstance(listed := record.get(heading), list) and len(listed) > (heading == "starts"):
            rows.append(Row(heading, str(len(listed))))
    rows += _texts(record, {"continued_from": "continued_from"})
    rows.append(Row("directory", str(entry.directory), is_code=True))
    return rows


def _texts(record: Mapping[str, Any], headings: Mapping[str, str]) -> list[Row]:
    return [Row(heading, shown(record[key])) for key, heading in headings.items() if record.get(key)]


def _of_data(record: Mapping[str, Any]) -> list[Row]:
    data, choices = record.get("data"), record.get("choices")
    rows = []
    if isinstance(choices, Mapping) and choices.get("data"):
        rows.append(Row("data", shown(choices["data"])))
    if not isinstance(data, Mapping):
        return rows
    train, held = data.get("num_train"), data.get("num_validation")
    if isinstance(train, int) and isinstance(held, int):
        rows.append(Row("images", "", "data_counts", {"train": f"{train:,}", "held": f"{held:,}"}))
    if data.get("fingerprint"):
        rows.append(Row("fingerprint", shown(data["fingerprint"]), is_code=True))
    if data.get("image_shape"):
        rows.append(Row("image_shape", shown(data["image_shape"])))
    if isinstance(classes := data.get("classes"), list) and classes:
        named = ", ".join(shown(name) for name in classes[:20])
        rows.append(Row("classes", f"{len(classes):,}: {named}{', ...' if len(classes) > 20 else ''}"))
    return rows


@dataclass(frozen=True)
class Setting:
    """A key of a configuration; `default` where it differs from it."""

    key: str
    value: str
    default: str | None = None


def settings(entry: Entry) -> list[tuple[str, list[Setting]]]:
    """The whole configuration by its first key, with what differs from the defaults marked."""
    marked = differences.from_defaults(entry) or {}
    groups: dict[str, list[Setting]] = {}
    for key, value in flat(entry.config).items():
        default = marked[key][1] if key in marked else None
        groups.setdefault(key.partition(".")[0], []).append(Setting(key, shown(value), default))
    return list(groups.items())


def common(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Keys that all configurations have with the same value."""
    configs = [flat(entry.config) for entry in entries if entry.config]
    if not configs:
        return []
    return [
        (key, shown(value))
        for key, value in configs[0].items()
        if all(key in own and own[key] == value for own in configs[1:])
    ]
