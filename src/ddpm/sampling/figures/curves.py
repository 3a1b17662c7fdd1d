"""What figures of several runs have in common: lines that can be told apart, and their legend."""

from typing import TYPE_CHECKING, Any

from ddpm.sampling.figures.style import LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def look(index: int) -> dict[str, Any]:
    """Colour and dashes of a run; those of seven are of different colours, of 28 different in one of both."""
    import matplotlib

    colours = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    return {
        "color": colours[index % len(colours)],
        "linestyle": LINES[(index + index // len(colours)) % len(LINES)],
    }


def plain(panel: "Axes") -> None:
    """Have a logarithmic axis of losses say 0.1, 0.2, 0.5 where it is short, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    low, high = panel.get_ylim()
    if panel.get_yscale() == "log" and high < 300 * low:
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_locator(NullLocator())


def legend(figure: "Figure", panel: "Axes", runs: int) -> None:
    """Name the lines of a panel above the figure, where they are of several runs."""
    if runs > 1:
        columns = min(runs, 3)
        figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=columns)
