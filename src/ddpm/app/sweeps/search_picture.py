"""A picture of a search: what each trial came to, how the runs went, and which parameters mattered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ddpm.runtime.writing import whole

NAME = "search.png"


def draw(study: optuna.Study, monitor: str, importance: Mapping[str, float], path: Path) -> None:
    """Write the picture.

    Args:
        study: with at least one complete trial.
        monitor: the metric that is compared.
        importance: shares of the parameters, by name.
        path: of the file, a png.

    Raises:
        OSError: where it cannot be written.
    """
    from matplotlib.figure import Figure  # a second that nothing else needs

    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE and trial.value is not None]
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED and trial.intermediate_values]
    better = min if study.direction == optuna.study.StudyDirection.MINIMIZE else max
    best = study.best_trial
    figure = Figure(figsize=(13, 4), layout="constrained")
    values, curves, shares = figure.subplots(1, 3)

    numbers = [trial.number for trial in complete]
    found = [float(trial.value) for trial in complete if trial.value is not None]
    so_far = [better(found[: end + 1]) for end in range(len(found))]
    values.step(numbers, so_far, where="post", color="C1", label="best so far")
    values.plot(numbers, found, "o", color="C0", label="complete")
    last = [trial.intermediate_values[max(trial.intermediate_values)] for trial in pruned]
    values.plot([trial.number for trial in pruned], last, "x", color="0.5", label="ended early, its last")
    values.set(xlabel="trial", ylabel=monitor, title=f"Best: trial {best.number}, {best.value:.5g}")
    values.xaxis.get_major_locator().set_params(integer=True)
    values.legend()

    for trial in [*pruned, *complete]:
        steps = sorted(trial.intermediate_values)
        style: dict[str, Any] = {"color": "C0"}
        if trial in pruned:
            style = {"color": "0.7", "marker": "x", "markevery": [-1]}
        if trial.number == best.number:
            style = {"color": "C1", "linewidth": 2.5, "zorder": 3}
        curves.plot(steps, [trial.intermediate_values[step] for step in steps], **style)
    curves.set(xlabel="optimizer steps", ylabel=monitor, title="Runs")
    curves.xaxis.get_major_locator().set_params(integer=True)

    names = list(importance)[::-1]
    shares.barh(names, [importance[name] for name in names])
    shares.set(xlim=(0, 1), xlabel="share of the variance", title="What mattered")
    if not names:
        shares.text(0.5, 0.5, "too few complete trials", ha="center", transform=shares.transAxes)
        shares.set_yticks([])
    with whole(path) as temporary:
        figure.savefig(temporary, dpi=110)
