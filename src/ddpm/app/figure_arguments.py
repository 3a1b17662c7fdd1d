"""What can be typed after `ddpm figure`, and which of it belongs to which figure."""

import argparse
import difflib
import math
from collections.abc import Callable
from pathlib import Path

from ddpm.errors import UsageError

FIGURES = {
    "forward": "images of the run's data from t = 0 to T - 1, or as an animation",
    "denoising": "samples from noise to image with the predicted x_0 beneath, or as an animation",
    "schedule": "alpha-bar, log SNR, beta and the weight of the loss over t; of several runs over each other",
    "loss": "loss by step and over t; of several runs over each other",
    "path": "ways of samples in the plane of the data's first principal components, and as strips of film",
    "neighbours": "samples beside the training images that are nearest to them",
}
"""Each figure and what it shows."""

DRAWN = {"n", "seed", "weights", "sampler", "num_steps", "labels"}
"""Options of figures of samples."""

OWN: dict[str, set[str]] = {
    "forward": {"n", "seed", "steps"},
    "denoising": {*DRAWN, "steps"},
    "schedule": set(),
    "loss": {"seed", "weights", "scale", "by_t"},
    "path": {*DRAWN, "steps"},
    "neighbours": {*DRAWN, "k"},
}
"""The options of each figure, beside those of all."""

OF_SEVERAL = ("schedule", "loss")
"""Figures of several runs."""

MOVING = ("forward", "denoising")
"""Figures that are animations too."""

MOST_PIXELS = 20_000
"""Of a figure's width."""


def add_figure_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a parser take the arguments of `ddpm figure`."""
    parser.description = "Figures:\n" + "\n".join(f"  {name:<12}{what}" for name, what in FIGURES.items())
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("figure", type=_figure, metavar="FIGURE", help=", ".join(FIGURES))
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN_DIR", help="a run or a checkpoint")
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        metavar="FILE",
        help=".png, .svg or .pdf, and of forward and denoising .gif or .mp4; "
        "by default figures/FIGURE.png in the run's directory, of several runs FIGURE.png where you stand",
    )
    add("--width", type=_number(0.5, 100.0), default=6.5, metavar="INCHES", help="of the figure (6.5)")
    add("--dpi", type=_number(20, 2400), default=200.0, help="pixels an inch (200)")
    add("--dark", action="store_true", help="for a dark page")
    add("--n", type=_count(1), help="images or samples, rows of the figure")
    add("--seed", type=_count(0), help="of noise and of the choice of images (0)")
    add("--steps", type=_count(2), help="timesteps that are shown, or frames of an animation")
    add("--k", type=_count(1), help="neighbours of each sample (4)")
    add("--weights", choices=["ema", "raw"], help="the averaged weights, or the network's own (ema)")
    add("--sampler", metavar="OPTION", help="of conf/sampler, by default the run's own; of path ddim")
    add("--num-steps", type=_count(1), help="of the sampler")
    add("--labels", nargs="+", metavar="CLASS", help="that samples take in turn, by name or number")
    add("--scale", choices=["log", "linear"], help="of losses (log)")
    add(
        "--by-t",
        action=argparse.BooleanOptionalAction,
        help="the loss over t; by default where computing it takes under half a minute",
    )
    add("--allow-targets", nargs="+", default=[], metavar="PACKAGE", help="of your own, that the run uses")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what a figure has no use for.

    Raises:
        UsageError: naming the option.
    """
    figure = arguments.figure
    for name in sorted({*set().union(*OWN.values())} - OWN[figure]):
        if getattr(arguments, name) is not None:
            those = ", ".join(other for other, own in OWN.items() if name in own)
            raise UsageError(f"--{name.replace('_', '-')}: is of {those}; leave it out for {figure}")
    if len(arguments.runs) > 1 and figure not in OF_SEVERAL:
        raise UsageError(
            f"{figure}: is of one run, and {len(arguments.runs)} are named; of several are "
            f"{' and '.join(OF_SEVERAL)}"
        )
    if arguments.width * arguments.dpi > MOST_PIXELS:
        raise UsageError(
            f"--dpi {arguments.dpi:g}: {arguments.width:g} inches would be more than {MOST_PIXELS:,} pixels "
            f"wide; use --dpi {MOST_PIXELS / arguments.width:.0f} or less"
        )


def _figure(text: str) -> str:
    if text in FIGURES:
        return text
    near = difflib.get_close_matches(text, FIGURES, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FIGURES)}"
    raise argparse.ArgumentTypeError(f"{text}: there is no such figure; {hint}")


def _count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) < 2**63:
            raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least {least}")
        return int(text)

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: must be a number between {low:g} and {high:g}")
        return value

    return read
