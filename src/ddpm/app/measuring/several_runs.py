"""What evaluate.py does with several runs: it measures each on the same noise, and compares them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from ddpm import bounded
from ddpm.app import terminal
from ddpm.app.measuring import comparison_pictures, measurements_file
from ddpm.app.measuring.differences import compared, lines
from ddpm.app.measuring.figures import MOST_BYTES
from ddpm.app.measuring.measurement import (
    Measurement,
    announce,
    data_of,
    draw_under_held_out,
    metrics_of,
    some,
)
from ddpm.app.measuring.measurements import MEASURED
from ddpm.app.measuring.quality import comparison_of, contents_of_reference
from ddpm.app.measuring.run_names import names_of
from ddpm.app.named_weights import named_weights
from ddpm.app.request import Request
from ddpm.app.run_directory import COMPARED, Place
from ddpm.app.shared_work import PIECES, Work
from ddpm.data.images import DataSet
from ddpm.errors import UsageError
from ddpm.evaluation import kept
from ddpm.evaluation.kept import Kept
from ddpm.run import Run, load
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.sharing import Sharing
from ddpm.training.checkpoints.archive import fingerprint
from ddpm.training.guides import contents_of_guide

log = logging.getLogger(__name__)

KEPT = "paired.npz"
"""What each run's values are made of, beside its measurements."""


def work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be measured and compared; None where all of it is there.

    Raises:
        UsageError: where runs are not there or cannot be compared, or the settings make no sense.
    """
    device = trainer.strategy.root_device
    if device.type == "cpu":
        keep_freed_memory()
    metrics = metrics_of(config)
    runs = _loaded(config)
    _check_alike(runs)
    data = data_of(next(iter(runs.values())), config)
    measurements = {}
    for name, run in runs.items():
        with _named(name), _on(run, device):
            if run.module.is_conditioned:  # each run in its own way
                own = data_of(run, config)
                draw_under_held_out(run, own)
                _check_same_held_out(own.data_set, data.data_set)
            measurements[name] = Measurement(run, config, metrics, data)
    contents = {f"ckpt[{name}]": fingerprint(run.checkpoint) for name, run in runs.items()}
    for run in runs.values():
        contents |= contents_of_guide(run.module.guidance)
    contents |= {"data": data.fingerprint, **contents_of_reference(config)}
    request = Request(config, contents)
    directory = place.directory
    if measurements_file.is_there(place, request, leader=trainer.is_global_zero):
        return None
    comparison = None
    if metrics.of_samples:
        comparison = comparison_of(metrics.of_samples, config, data.data_set.pictures, device)
    for name, measurement in measurements.items():
        with _named(name), _on(measurement.run, device):
            measurement.prepare(comparison, trainer)

    def begin() -> None:
        for name, run in runs.items():
            log.info("%s: %s, step %d, %s", name, run.checkpoint, run.step, named_weights(run, config))
        _warn_of_other_data(runs, data.fingerprint)
        _warn_of_other_settings(measurements)
        request.write(directory)

    def share(sharing: Sharing) -> None:
        apart = {name: sharing.apart(name, directory / COMPARED / name / PIECES) for name in runs}
        places = {name: directory / COMPARED / name for name in runs}
        left = [
            name for name in runs if not sharing.leaders(f"measured/{name}", (places[name] / MEASURED).exists)
        ]
        if sharing.is_leader:
            announce(_seconds({name: measurements[name] for name in left}, apart, device))
        for name in left:
            log.info("%s: measuring", name)
            found, own = measurements[name], Kept()
            with _on(found.run, device):
                values = found.measure(places[name], apart[name], own)
            if sharing.is_leader:
                own.write(places[name] / KEPT)
                measurements_file.write(places[name], values)
            apart[name].end()
        if sharing.is_leader:
            _compare(directory, places, data.data_set.classes)
            terminal.say(str(directory))

    weights = {} if comparison is None else comparison.checksums
    return Work("evaluate.log", "measuring", None, {**contents, **weights, **request.texts()}, begin, share)


def _check_same_held_out(own: DataSet, data: DataSet) -> None:
    """Refuse, with UsageError, conditions that are of other images than those that runs are compared on."""
    mine, compared_on = (found.pictures.validation.images for found in (own, data))
    if not np.array_equal(mine, compared_on):
        raise UsageError(
            "data: this run is conditioned on more than the class, and its data hold out other images than "
            "those of the first run, on which runs are compared; measure it apart"
        )


def _compare(directory: Path, places: Mapping[str, Path], classes: Any) -> None:
    """Compare what is there of all runs, in files and in words."""
    values = {name: bounded.json_values(path / MEASURED, MOST_BYTES) for name, path in places.items()}
    of_runs = {name: kept.read(path / KEPT) for name, path in places.items()}
    found = compared(values, of_runs)
    names = None if classes is None else [str(name) for name in classes]
    comparison_pictures.draw_samples(of_runs, names, directory / comparison_pictures.SAMPLES)
    comparison_pictures.draw_values(found, list(places), directory / comparison_pictures.VALUES)
    differences = {label: value.values() for label, value in found.items()}
    measurements_file.write(directory, {"runs": values, "differences": differences})
    for line in lines(found, list(places)):
        terminal.say(line)


def _loaded(config: Mapping[str, Any]) -> dict[str, Run]:
    """The runs by short names, on the CPU.

    Raises:
        UsageError: where one is not there, or two are the same.
    """
    runs = [
        load(path, "cpu", config["allow_targets"], sigma_rel=config["sigma_rel"]) for path in config["ckpt"]
    ]
    prints = [fingerprint(run.checkpoint) for run in runs]
    for index, one in enumerate(prints):
        if (before := prints.index(one)) < index:
            raise UsageError(
                f"ckpt: {runs[before].checkpoint} and {runs[index].checkpoint} are the same checkpoint; "
                "leave one of them out"
            )
    return dict(zip(names_of([run.checkpoint for run in runs]), runs, strict=True))


def _check_alike(runs: Mapping[str, Run]) -> None:
    """Refuse runs whose samples are not of one kind.

    Raises:
        UsageError: naming two that differ.
    """
    first, *others = runs.items()
    for name, run in others:
        one, two = first[1].module.image_shape, run.module.image_shape
        if one != two:
            raise UsageError(
                f"ckpt: {first[0]} draws {list(one)} (channels, height, width) and {name} {list(two)}; "
                "compare runs that draw images of one shape"
            )
    conditional = [(name, run.module.classes or []) for name, run in runs.items() if run.module.num_classes]
    for name, classes in conditional[1:]:
        other, theirs = conditional[0]
        if classes != theirs:
            order = " in another order" if sorted(classes) == sorted(theirs) else ""
            raise UsageError(
                f"ckpt: {other} has the classes {some(theirs)}, and {name} has {some(classes)}{order}; "
                "compare runs with the same classes"
            )


@contextmanager
def _named(run: str) -> Iterator[None]:
    """Say whose mistake it is."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{error} (the run {run})") from error


@contextmanager
def _on(run: Run, device: torch.device) -> Iterator[None]:
    """Have a run's network on the device as long as it is used: the device need not hold all of them."""
    run.module.to(device)
    try:
        yield
    finally:
        run.module.to("cpu")


def _warn_of_other_data(runs: Mapping[str, Run], measured_with: str) -> None:
    others = [
        name
        for name, run in runs.items()
        if (run.module.data or {}).get("fingerprint", measured_with) != measured_with
    ]
    if others:
        log.warning(
            "trained on other images than those that all are measured with, or with others held out: %s; "
            "what differs may be the data's doing",
            ", ".join(others),
        )


def _warn_of_other_settings(measurements: Mapping[str, Measurement]) -> None:
    """Where each run draws in its own way, what is compared is more than the networks."""
    ways = {name: one.quality.way for name, one in measurements.items() if one.quality is not None}
    if len(set(ways.values())) > 1:
        told = ", ".join(f"{name} by {way}" for name, way in ways.items())
        log.warning(
            "samples are drawn in different ways: %s; sampler=OPTION guidance=OPTION are those of all", told
        )


def _seconds(
    measurements: Mapping[str, Measurement], apart: Mapping[str, Sharing], device: torch.device
) -> dict[str, float]:
    """How long all of them will take; references count once."""
    total: Counter[str] = Counter()
    for index, (name, measurement) in enumerate(measurements.items()):
        with _on(measurement.run, device):
            total.update(measurement.seconds(apart[name], references=index == 0))
    return dict(total)
