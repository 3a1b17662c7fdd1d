"""A Weights & Biases report of a sweep: its runs, their curves and grids, and what sets them apart."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpm.data.skipped import printable
from ddpm.report.workspace import RESULT, SWEPT, Line, coordinates, line_plot, pictures

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2.interface import BlockTypes, PanelTypes

LONGEST = 128
"""Characters of a title, as W&B takes them."""

CURVES = (
    Line("validation loss", ("val/loss",), log=True),
    Line("training loss", ("train/loss",), log=True),
    Line("norm of the gradient", ("train/gradient_norm",), log=True),
    Line("images per second", ("perf/images_per_second",)),
)
"""Two in a row of a report."""

WIDTH, HEIGHT = 24, 8
"""Of a report, in W&B's units, and of a panel in it."""


@dataclass(frozen=True)
class Told:
    """What is known of a sweep beside what W&B has of its runs.

    Attributes:
        group: of its runs on W&B.
        command: by which it was started; empty where it is not known.
        table: its jobs, the best first, in lines of text; empty where it is not known.
        further: lines about it, of a search the best trial.
        keys: of the configuration that set its runs apart.
        result: the metric by which they are compared.
    """

    group: str
    command: str = ""
    table: str = ""
    further: tuple[str, ...] = ()
    keys: tuple[str, ...] = SWEPT
    result: str = RESULT


def report(entity: str, project: str, told: Told) -> "wr.Report":
    """The report, which nothing has been sent of yet.

    Args:
        entity: user or team of Weights & Biases.
        project: of it.
        told: about the sweep.
    """
    import wandb_workspaces.reports.v2 as wr

    def runs() -> list["wr.Runset"]:  # without a project of its own it is of the report's
        return [
            wr.Runset(
                name=told.group,
                filters=f"Metric('Group') == {told.group!r}",  # read as Python
                order=[wr.OrderBy(wr.SummaryMetric(told.result), ascending=True)],
            )
        ]

    half = WIDTH // 2
    curves: list[PanelTypes] = [
        line_plot(line, wr.Layout(x=i % 2 * half, y=i // 2 * HEIGHT, w=half, h=HEIGHT))
        for i, line in enumerate(CURVES)
    ]
    whole = wr.Layout(w=WIDTH, h=HEIGHT)
    apart: list[PanelTypes] = [coordinates(told.keys, told.result, whole)]
    grids: list[PanelTypes] = [pictures("samples/grid", wr.Layout(w=WIDTH, h=2 * HEIGHT), by_run=True)]
    blocks: list[BlockTypes] = [
        *_text(told),
        wr.H2("Curves"),
        wr.PanelGrid(runsets=runs(), panels=curves),
        wr.H2("What sets the runs apart"),
        wr.PanelGrid(runsets=runs(), panels=apart),
        wr.H2("Samples"),
        wr.P("A row a run. The same cell of every grid starts from the same noise."),
        wr.PanelGrid(runsets=runs(), panels=grids),
    ]
    title = f"Sweep {printable(told.group)}"[:LONGEST]
    return wr.Report(entity=entity, project=project, title=title, blocks=blocks, width="fluid")


def _text(told: Told) -> "list[BlockTypes]":
    import wandb_workspaces.reports.v2 as wr

    blocks: list[BlockTypes] = [
        wr.P(f"Runs of the group {printable(told.group)}, compared by {told.result}.")
    ]
    if told.command:
        blocks += [wr.P("They were started by"), wr.CodeBlock(told.command, language="markdown")]
    if told.table:
        blocks += [wr.H2("What came out"), wr.CodeBlock(told.table, language="markdown")]
    return [*blocks, *(wr.P(printable(line)) for line in told.further)]
