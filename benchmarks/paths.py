"""Which path from image to noise, and which prediction: Frechet distance against network evaluations.

    python train.py sweep=paths experiment=digits_paper seed=0,1,2 trainer.max_steps=1000 optimizer.lr=3e-3 \
        logger=none callbacks.samples=null trainer.val_check_interval=1000 hydra.sweep.dir=logs/paths
    python benchmarks/paths.py logs/paths

Measures every run of that sweep by DDIM with 5, 10, 20 and 50 evaluations, from the same noise. Prints the
mean over the seeds of training and half of its interval of 95 % (Student's t), and draws them to paths.png.
Seeds whose rows are all trained are measured while others are trained; it can be stopped, and the same
command goes on. What is not trained yet, or has failed, is named and left out.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from scipy import stats

from ddpm.app.measuring.figures import figures_of
from ddpm.app.sweeps import record
from ddpm.errors import UsageError
from ddpm.runtime.writing import whole
from ddpm.sampling.figures.style import styled

ROOT = Path(__file__).parents[1]

NUM_STEPS = (5, 10, 20, 50)

METRIC = "fd_classifier"

PATHS = {"linear": "DDPM, linear", "cosine": "DDPM, cosine", "flow": "rectified flow", "edm": "EDM"}
"""Options of `schedule`, a panel each."""

PREDICTIONS = {
    "epsilon": "epsilon",
    "v": "v",
    "x_0": "x_0",
    "flow": "velocity",
    "edm": "preconditioned",
    "flow, logit_normal": "velocity, logit-normal t",
}
"""By objective, and how t is drawn where that is not what the path comes with."""

COLOURS = dict(zip(PREDICTIONS, ("C0", "C1", "C2", "C3", "C3", "C4"), strict=True))
"""Flow's and EDM's own prediction share one: no panel has both."""


class Row(NamedTuple):
    """One row of the sweep."""

    path: str
    prediction: str


class Point(NamedTuple):
    """Over the seeds of training; half of the interval is NaN where there is one seed."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if math.isnan(self.half) else f" ± {self.half:.1f}")


def settings_of(job: record.Job) -> dict[str, str]:
    """Group or key -> what was chosen."""
    return dict(text.lstrip("+").split("=", 1) for text in job.overrides)


def row_of(job: record.Job) -> Row:
    """Of the sweep's rows."""
    chosen = settings_of(job)
    prediction = chosen["objective"]
    if chosen.get("timesteps") == "logit_normal":
        prediction += ", logit_normal"
    return Row(chosen["schedule"], prediction)


def trained(sweep: Path) -> dict[str, dict[Row, Path]]:
    """Seed -> row -> its run, of the seeds whose rows are all trained; says which are not.

    Raises:
        UsageError: where no seed is, or this is no sweep of paths.
    """
    jobs: dict[str, list[record.Job]] = {}
    for job in record.read(sweep).looked_at().jobs:
        if not {"schedule", "objective"} <= settings_of(job).keys():
            raise UsageError(f"{sweep}: is no sweep of paths; train one by sweep=paths")
        jobs.setdefault(settings_of(job).get("seed", "0"), []).append(job)
    found = {}
    for seed, own in jobs.items():
        missing = [f"job {job.number} ({job.status})" for job in own if not job.is_done]
        if missing:
            print(f"seed {seed} is left out: {', '.join(missing)}")
        else:
            found[seed] = {row_of(job): job.directory for job in own}
    if not found:
        raise UsageError(f"{sweep}: no seed has all its rows trained; the command of the sweep goes on")
    return found


def measured(runs: Mapping[Row, Path], num_steps: int, n: int, out: Path) -> dict[Row, float]:
    """The distances of the runs of one seed; only what is not there yet is measured."""
    if not (out / "metrics.json").exists():
        command = [
            sys.executable, str(ROOT / "evaluate.py"), f"ckpt=[{','.join(map(str, runs.values()))}]",
            "sampler=ddim", f"sampler.num_steps={num_steps}", f"metrics=[{METRIC}]", f"n={n}",
            "batch_size=500", f"hydra.run.dir={out}", "verbose=quiet",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    values = json.loads((out / "metrics.json").read_text())["runs"].values()
    return {row: figures_of(found)[METRIC].value for row, found in zip(runs, values, strict=True)}


def points(distances: Sequence[Mapping[Row, float]]) -> Iterator[tuple[Row, Point]]:
    """Mean and half of the interval of each row, over the seeds."""
    for row in distances[0]:
        own = [of_seed[row] for of_seed in distances]
        half = math.nan
        if len(own) > 1:
            half = stats.t.ppf(0.975, len(own) - 1) * statistics.stdev(own) / len(own) ** 0.5
        yield row, Point(statistics.mean(own), half)


def draw(found: Mapping[int, Mapping[Row, Point]], path: Path) -> None:
    """A panel a path, a line a prediction."""
    rows = list(next(iter(found.values())))
    with styled():
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        panels = figure.subplots(1, len(PATHS), sharey=True)
        for panel, (name, title) in zip(panels, PATHS.items(), strict=True):
            for row in (row for row in rows if row.path == name):
                line = [found[steps][row] for steps in found]
                panel.errorbar(
                    list(found), [point.mean for point in line], [point.half for point in line],
                    label=PREDICTIONS[row.prediction], color=COLOURS[row.prediction], marker="o",
                    markersize=3, capsize=2,
                )  # fmt: skip
            panel.set(title=title, xscale="log", yscale="log", xlabel="network evaluations")
            panel.set_xticks(list(found), list(map(str, found)), minor=False)
            panel.xaxis.set_minor_formatter(NullFormatter())
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(ScalarFormatter())
            panel.yaxis.set_minor_formatter(NullFormatter())
            panel.grid(alpha=0.3)
            panel.legend()
        panels[0].set_ylabel("Fréchet distance")
        with whole(path) as temporary:
            figure.savefig(temporary, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--n", type=int, default=1000, help="samples of each run")
    arguments = parser.parse_args()
    try:
        runs = trained(arguments.sweep)
    except UsageError as error:
        parser.error(str(error))
    found: dict[int, dict[Row, Point]] = {}
    for steps in NUM_STEPS:
        outs = {seed: arguments.sweep / f"measured/ddim{steps}_seed{seed}_{arguments.n}" for seed in runs}
        of_seeds = [measured(runs[seed], steps, arguments.n, out) for seed, out in outs.items()]
        found[steps] = dict(points(of_seeds))
        print(f"{steps} evaluations of seeds {', '.join(runs)}", flush=True)
    print("path        prediction               " + "".join(f"{steps:>15}" for steps in NUM_STEPS))
    for row in found[NUM_STEPS[0]]:
        cells = "".join(f"{found[steps][row]!s:>15}" for steps in NUM_STEPS)
        print(f"{row.path:<12}{PREDICTIONS[row.prediction]:<25}{cells}")
    draw(found, arguments.sweep / "paths.png")


if __name__ == "__main__":
    main()
