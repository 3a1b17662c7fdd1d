"""Which path from image to noise, and which prediction: Frechet distance against network evaluations.

    python train.py sweep=paths seed=0,1,2 trainer.max_steps=1000 optimizer.lr=3e-3 callbacks.samples=null \
hydra.sweep.dir=logs/paths
    python benchmarks/paths.py logs/paths

Measures every run of that sweep by DDIM, which on each of these paths is Euler's method for its ODE, with 5,
10, 20 and 50 evaluations, from the same noise. Prints the mean over the seeds of training and half of its
interval of 95 % (Student's t), and draws them to paths.png. Seeds whose rows are all trained are measured
while others are trained; it can be stopped, and the same command goes on.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from scipy import stats

from ddpm.runtime.writing import whole
from ddpm.sampling.figures.style import styled

ROOT = Path(__file__).parents[1]

NUM_STEPS = (5, 10, 20, 50)

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


class Row(NamedTuple):
    """One row of the sweep."""

    path: str
    prediction: str


class Point(NamedTuple):
    """Over the seeds of training."""

    mean: float
    half: float


def row_of(overrides: Sequence[str]) -> Row:
    """Of the job with these."""
    chosen = dict(text.lstrip("+").split("=", 1) for text in overrides)
    prediction = chosen["objective"]
    if chosen.get("timesteps") == "logit_normal":
        prediction += ", logit_normal"
    return Row(chosen["schedule"], prediction)


def finished(sweep: Path) -> dict[str, dict[Row, Path]]:
    """Seed -> row -> its run."""
    found: dict[str, dict[Row, Path]] = {}
    for job in json.loads((sweep / "sweep.json").read_text())["jobs"]:
        if job["status"] == "finished":
            runs = found.setdefault(job["differs"].get("seed", "0"), {})
            runs[row_of(job["overrides"])] = (sweep / job["directory"]).resolve()
    return found


def measured(runs: Mapping[Row, Path], num_steps: int, n: int, out: Path) -> dict[Row, float]:
    """The distances of the runs of one seed; only what is not there yet is measured."""
    if not (out / "metrics.json").exists():
        command = [
            sys.executable, str(ROOT / "evaluate.py"), f"ckpt=[{','.join(map(str, runs.values()))}]",
            "sampler=ddim", f"sampler.num_steps={num_steps}", "metrics=[fd_classifier]", f"n={n}",
            "batch_size=500", f"hydra.run.dir={out}", "verbose=quiet",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    values = json.loads((out / "metrics.json").read_text())["runs"].values()
    return {row: _distance(found["fd_classifier"]) for row, found in zip(runs, values, strict=True)}


def _distance(found: Mapping[str, object]) -> float:
    (name,) = (name for name in found if name.startswith("fd"))
    return float(str(found[name]))


def points(distances: Sequence[Mapping[Row, float]]) -> Iterator[tuple[Row, Point]]:
    """Mean and half of the interval of each row, over the seeds that have it."""
    for row in distances[0]:
        own = [of_seed[row] for of_seed in distances if row in of_seed]
        half = float("nan")
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
    runs = finished(arguments.sweep)
    every = max(map(len, runs.values()))
    seeds = [seed for seed in runs if len(runs[seed]) == every]
    found: dict[int, dict[Row, Point]] = {}
    for steps in NUM_STEPS:
        outs = {
            seed: arguments.sweep / "measured" / f"ddim{steps}_seed{seed}_{arguments.n}" for seed in seeds
        }
        of_seeds = [measured(runs[seed], steps, arguments.n, out) for seed, out in outs.items()]
        found[steps] = dict(points(of_seeds))
        print(f"{steps} evaluations, {len(seeds)} seeds", flush=True)
    print("path        prediction               " + "".join(f"{steps:>15}" for steps in NUM_STEPS))
    for row in found[NUM_STEPS[0]]:
        cells = (f"{found[steps][row].mean:.1f} ± {found[steps][row].half:.1f}" for steps in NUM_STEPS)
        line = f"{row.path:<12}{PREDICTIONS[row.prediction]:<25}" + "".join(f"{cell:>15}" for cell in cells)
        print(line)
    draw(found, arguments.sweep / "paths.png")


if __name__ == "__main__":
    main()
