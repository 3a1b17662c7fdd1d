"""One HTML file of what runs are and what came out of them, which needs nothing else, no network either.

Whatever a run directory says reaches the page escaped: by the template, and in data by `script_json`. Beside
that the page tells the browser to run no script but those whose checksums it states, and to load nothing.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ddpm import __version__
from ddpm.errors import UsageError
from ddpm.report import differences, views
from ddpm.report.entries import Entry
from ddpm.report.grids import Grid
from ddpm.report.texts import LANGUAGES, text, texts

ASSETS = Path(__file__).with_name("assets")

SCRIPTS = (
    "core.js",
    "charts.js",
    "runs.js",
    "curves.js",
    "results.js",
    "samples.js",
    "figures.js",
    "start.js",
)
"""In the order in which the browser runs them."""


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Attributes:
        name: of all of it.
        entries: one for the page of a run, several for a comparison.
        command: of the sweep, as typed; empty where there is none.
        left_out: how many further runs there are that the page does not show.
        notes: what could not be read, in words.
        sweep: its directory, of a page of one sweep; None for others.
    """

    name: str
    entries: Sequence[Entry]
    command: str = ""
    left_out: int = 0
    notes: Sequence[str] = ()
    sweep: Path | None = None


def document(subject: Subject, *, language: str, time: str) -> str:
    """The page.

    Args:
        subject: what it is about.
        language: in which it opens: en or zh.
        time: at which it is written, as a text.

    Raises:
        UsageError: where plotly is missing.
    """
    found, figures = views.views(subject.entries, subject.sweep)
    apart = differences.apart(subject.entries) if len(found) > 1 else [{} for _ in found]
    columns = views.columns(found, apart)
    charts = views.charts(found)
    scripts, plotly = [(ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS], _plotly()
    environment = Environment(
        loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip

    def told(key: str, **values: Any) -> Markup:
        return _told(key, language, values)

    def attributes(**keys: Any) -> Markup:
        return _attributes(language, keys)

    return environment.get_template("page.html").render(
        subject=subject,
        found=found,
        apart=apart,
        columns=columns,
        charts=charts,
        figures=figures,
        films=script_json([one.film.uri for one in figures.shown if one.film is not None]),
        notes=[*subject.notes, *(said for place, said in figures.lost if place is None)],
        language=language,
        languages=LANGUAGES,
        time=time,
        version=__version__,
        most_runs=views.MOST_RUNS,
        views=views,
        differences=differences,
        t=told,
        attributes=attributes,
        title=text("title", language, {"name": subject.name}),
        style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        plotly=Markup(plotly),
        policy=_policy([*scripts, plotly]),
        data=script_json(_data(subject, found, columns, charts)),
        pictures=[script_json({str(one.step): _picture(one) for one in view.grids[:-1]}) for view in found],
    )


def _data(
    subject: Subject,
    found: Sequence[views.View],
    columns: Sequence[views.Column],
    charts: Mapping[str, Sequence[views.Chart]],
) -> dict[str, Any]:
    """What the page's scripts read."""
    return {
        "name": subject.name,
        "texts": texts(),
        "runs": [view.entry.name for view in found],
        "columns": [asdict(column) for column in columns],
        "charts": [
            {
                "name": chart.name,
                "curves": {str(i): [curve.steps, curve.values] for i, curve in chart.curves.items()},
            }
            for own in charts.values()
            for chart in own
        ],
        "steps": [[one.step for one in view.grids] for view in found],
    }


def _picture(one: Grid) -> list[Any]:
    return [one.uri, one.width, one.height, one.row]


def script_json(value: Any) -> Markup:
    """JSON that ends no script element and opens no comment, whatever it holds."""
    written = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return Markup(written.encode("utf-8", "replace").decode())


def _told(key: str, language: str, values: Mapping[str, Any]) -> Markup:
    """A text that the page can say in another language."""
    held = Markup(' data-values="{}"').format(json.dumps(values, default=str)) if values else Markup()
    return Markup('<span data-text="{}"{}>{}</span>').format(key, held, text(key, language, values))


def _attributes(language: str, keys: Mapping[str, Any]) -> Markup:
    """Attributes that the page can say in another language: name=key, or name=(key, values)."""
    found = {
        name.replace("_", "-"): key if isinstance(key, tuple | list) else (key, {})
        for name, key in keys.items()
    }
    said = Markup(" ").join(
        Markup('{}="{}"').format(name, text(key, language, values)) for name, (key, values) in found.items()
    )
    return said + Markup(' data-attributes="{}"').format(json.dumps(found, default=str))


def _policy(scripts: Sequence[str]) -> str:
    """What the browser may do with the page: run these scripts, show pictures that are in it, and no more."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    sums = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sums}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def _plotly() -> str:
    """plotly.js, out of the package of Python that brings it."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise UsageError(f"plotly cannot be imported ({error}); pip install plotly") from error
    return str(get_plotlyjs())
