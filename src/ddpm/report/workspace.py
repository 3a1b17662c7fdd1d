"""A Weights & Biases workspace for runs of this project: which panels, of which keys, in which order.

What a run logs stands in a section of its own by the first part of its name. Keys that every run has are
named here; others, as the norms of a network's blocks, are found by their beginnings. A test holds both
against what a run logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ddpm.training.loggers.wandb import STEP

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.reports.v2.interface import PanelTypes

NAME = "ddpm"
"""What the workspace is called."""


@dataclass(frozen=True)
class Line:
    """A panel of curves.

    Attributes:
        title: above it.
        keys: that it shows.
        regex: by which further keys are found, as W&B reads it; None for none.
        log: whether values have a logarithmic scale.
    """

    title: str
    keys: tuple[str, ...] = ()
    regex: str | None = None
    log: bool = False


LINES = {
    "train": (
        Line("loss", ("train/loss",), log=True),
        Line("norm of the gradient", ("train/gradient_norm",), log=True),
        Line("learning rate", ("train/learning_rate",)),
    ),
    "val": (
        Line("loss", ("val/loss",), log=True),
        Line("bits per dimension", ("val/bits_per_dim",)),
    ),
    "samples": (
        Line("distances", regex="^samples/(fid|fd_|kid|mifid)", log=True),
        Line("shares", regex="^samples/(precision|recall|density|coverage|own_label)"),
        Line("further measures", regex="^samples/(inception_score|nearest)"),
        Line("colours", regex="^samples/(mean|deviation)_"),
    ),
    "diagnostics": (
        Line("norm of the gradient by block", regex="^diagnostics/gradient_norm/", log=True),
        Line("norm of the parameters by block", regex="^diagnostics/parameter_norm/", log=True),
        Line("updates and the average", regex="^diagnostics/(update|ema|average)_", log=True),
        Line("steps that were skipped", ("diagnostics/skipped_steps",)),
        Line("spikes of the loss", ("diagnostics/loss_spike",), log=True),
    ),
    "perf": (
        Line("images per second", ("perf/images_per_second",)),
        Line("steps per second", ("perf/steps_per_second",)),
        Line("share of the device's peak", ("perf/mfu",)),
        Line("floating-point operations per second", ("perf/flops_per_second",), log=True),
        Line("peak memory in GiB", ("perf/peak_memory_gib",)),
        Line("share of the time that waits", ("perf/data_wait", "perf/rank_wait")),
    ),
    "data": (),
    "schedule": (),
}
"""Panels of curves by section, in the order of the workspace."""

PICTURES = {
    "samples": (
        "samples/grid",
        "samples/grid_raw",
        "samples/denoising",
        "samples/denoising_film",
        "samples/nearest",
    ),
    "diagnostics": ("diagnostics/loss_by_timestep", "diagnostics/val_loss_by_timestep"),
    "data": ("data/images", "data/contact_sheet", "data/forward"),
    "schedule": ("schedule/over_t",),
}
"""Keys of pictures by section, each a panel with a slider over the steps."""

SUMMARY = {
    "train": ("train/loss",),
    "val": ("val/loss", "val/bits_per_dim"),
    "perf": ("perf/images_per_second", "perf/peak_memory_gib"),
}
"""Keys of which the last value is a panel of its own, by section."""

SWEPT = (
    "schedule",
    "objective",
    "variance",
    "weighting",
    "model",
    "optimizer.lr",
    "data.batch_size",
    "ema.decay",
    "seed",
)
"""Keys of the configuration, as W&B has it, that sweeps go through, and what parallel coordinates show where
no sweep is named."""

RESULT = "val/loss"
"""By which runs are compared where nothing else is said."""

OPEN = ("train", "val", "samples")
"""Sections that are open at first."""

LOGARITHMIC = ("optimizer.lr",)
"""Keys of the configuration whose values are spread over powers of ten."""


def workspace(entity: str, project: str) -> "ws.Workspace":
    """The workspace of a project, which nothing has been sent of yet.

    Args:
        entity: user or team of Weights & Biases.
        project: of it.
    """
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[*(_section(name) for name in LINES), _comparison()],
        settings=ws.WorkspaceSettings(x_axis=STEP),
    )


def _section(name: str) -> "ws.Section":
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    panels: list[PanelTypes] = [
        *(wr.ScalarChart(title=f"last {key}", metric=wr.SummaryMetric(key)) for key in SUMMARY.get(name, ())),
        *(line_plot(line) for line in LINES[name]),
        *(pictures(key) for key in PICTURES.get(name, ())),
    ]
    return ws.Section(name=name, panels=panels, is_open=name in OPEN)


def _comparison() -> "ws.Section":
    """What sets runs apart, and what it led to."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    panels: list[PanelTypes] = [
        coordinates(SWEPT, RESULT),
        wr.ParameterImportancePlot(with_respect_to=RESULT),
        wr.RunComparer(diff_only=True),
    ]
    layout = ws.SectionLayoutSettings(columns=1, rows=3)
    return ws.Section(name="sweep", panels=panels, layout_settings=layout)


def line_plot(line: Line, layout: "wr.Layout | None" = None) -> "wr.LinePlot":
    """Curves over completed optimizer steps.

    Args:
        line: what they show.
        layout: place in a report; None in a workspace.
    """
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=line.title,
        x=wr.Metric(STEP),
        y=[wr.Metric(key) for key in line.keys],
        metric_regex=line.regex,
        log_y=line.log or None,
        layout=layout or wr.Layout(),
    )


def pictures(key: str, layout: "wr.Layout | None" = None, *, by_run: bool = False) -> "wr.MediaBrowser":
    """Pictures of one key, by step; with `by_run` a row a run, as noise is the same in all of them."""
    import wandb_workspaces.reports.v2 as wr

    layout = layout or wr.Layout()
    if by_run:
        return wr.MediaBrowser(
            title=key, media_keys=[key], layout=layout, grid_x_axis="step", grid_y_axis="run"
        )
    return wr.MediaBrowser(title=key, media_keys=[key], layout=layout, gallery_axis="step")


def coordinates(
    keys: Sequence[str], result: str, layout: "wr.Layout | None" = None
) -> "wr.ParallelCoordinatesPlot":
    """Parallel coordinates: an axis for each key of the configuration, and one for what came out."""
    import wandb_workspaces.reports.v2 as wr
    from wandb_workspaces.reports.v2 import internal

    class Flat(wr.ParallelCoordinatesPlotColumn):
        """Of a key with dots that is one key, as a run's configuration is logged; W&B's own are nested."""

        def _to_model(self) -> internal.Column:
            accessor = f"config:{self.display_name}.value"
            return internal.Column(accessor=accessor, display_name=self.display_name, log=self.log)

    columns: list[wr.ParallelCoordinatesPlotColumn] = [
        *(Flat(metric=wr.Config(key), display_name=key, log=key in LOGARITHMIC or None) for key in keys),
        wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(result), display_name=result),
    ]
    return wr.ParallelCoordinatesPlot(columns=columns, layout=layout or wr.Layout())
