"""What evaluate.py does once its configuration is checked."""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.build import build_data, describe
from ddpm.app.command_line import Job
from ddpm.app.devices import loading_device
from ddpm.app.own import own_settings
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.run_record import without_nan
from ddpm.app.shared_work import Work, on_devices
from ddpm.errors import UsageError
from ddpm.evaluation.metric import Metric
from ddpm.run import Run, load
from ddpm.runtime.computing import choose
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.sharing import Sharing
from ddpm.runtime.writing import write_whole
from ddpm.sampling.batches import images_at_once
from ddpm.targets import build
from ddpm.training.checkpoints.archive import fingerprint

log = logging.getLogger(__name__)

MEASURED = "metrics.json"
"""What all measurements are written to."""


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be measured, and the images to measure it with.

    Raises:
        UsageError: where there are none, or the settings make no sense.
    """
    torch.backends.cudnn.allow_tf32 = False  # bits per dimension are worth the time
    return on_devices(config, place, partial(_work, config, place))


def _work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be measured; None where all of it is there."""
    run = load(config["ckpt"], loading_device(trainer), config["allow_targets"])
    if run.module.device.type == "cpu":
        keep_freed_memory()
    try:
        computing = choose(
            trainer.strategy.root_device,
            run.module.num_parameters,
            0,
            precision=config["trainer"]["precision"],
            channels_last=False,
            compile=False,
        )
    except UsageError as error:  # about the precision
        raise UsageError(f"trainer.{error}") from error
    run.module.compute_as(computing)
    metrics: dict[str, Metric] = {
        name: build(f"metrics.{name}", node) for name, node in config["metrics"].items() if node
    }
    if not metrics:
        raise UsageError("metrics: nothing is to be measured; choose metrics=[OPTION,...]")
    if config["variance"]:
        _swap_variance(run, config)
    settings = own_settings(run, config, "data")
    data = build_data({"data": settings, "seed": run.config["seed"]})
    if data.image_shape != run.module.image_shape:
        raise UsageError(
            f"data: images are {list(data.image_shape)} (channels, height, width), and the run draws "
            f"{list(run.module.image_shape)}"
        )
    with suppress(ValueError):  # of an earlier version, whose order of names was another
        data.order_classes(run.module.classes or ())
    theirs = data.data_set.classes
    if run.module.classes is not None and list(theirs or ()) != run.module.classes:
        raise UsageError(
            f"data: its classes are {_some(theirs)}, and this run was trained with conditional=true on "
            f"{_some(run.module.classes)}"
        )
    for metric in metrics.values():
        try:
            metric.check(run.module, data)
        except ValueError as error:
            raise UsageError(str(error)) from error
    directory, described = place.directory, describe(data)
    contents = {"ckpt": fingerprint(run.checkpoint), "data": described["fingerprint"]}
    request = Request(config, contents)
    if place.request is not None:
        place.request.refuse_another(directory, config, contents)
        if (directory / MEASURED).exists():
            if trainer.is_global_zero:
                terminal.say(f"{directory}: holds these measurements already")
            return None

    def begin() -> None:
        log.info("measuring %s, step %d, %s weights", run.checkpoint, run.step, config["weights"])
        request.write(directory)

    def share(sharing: Sharing) -> None:
        found: dict[str, Any] = {
            "ckpt": str(run.checkpoint),
            "step": run.step,
            "weights": config["weights"],
            "seed": config["seed"],
            "data": described,
            "settings": {
                **{group: run.config[group] for group in ("schedule", "objective", "conditional")},
                "variance": config["variance"] or run.config["variance"],
                "metrics": config["metrics"],
            },
        }
        for name, metric in metrics.items():
            with run.module.evaluating(config["weights"]):
                found[name] = metric(
                    run.module,
                    data,
                    seed=config["seed"],
                    batch_size=config["batch_size"] or images_at_once(run.module),
                    directory=directory,
                    sharing=sharing.of(name),
                )
            if sharing.is_leader:
                terminal.say(summary(name, found[name]))
        if sharing.is_leader:
            write_whole(directory / MEASURED, json.dumps(without_nan(found), indent=2) + "\n")
            terminal.say(str(directory))

    return Work("evaluate.log", "measuring", run.module, {**contents, **request.texts()}, begin, share)


def _some(classes: Sequence[str] | None) -> str:
    named = ", ".join((classes or ())[:5])
    return f"{named} ..." if len(classes or ()) > 5 else named or "none"


def summary(name: str, values: dict[str, Any]) -> str:
    """A metric's single figures on one line."""
    figures = (f"{key} {value:.6g}" for key, value in values.items() if isinstance(value, int | float))
    return f"{name}  " + "  ".join(figures)


def _swap_variance(run: Run, config: dict[str, Any]) -> None:
    """Another fixed variance, which training takes no part in.

    Raises:
        UsageError: where the network has, or has not, outputs for it.
    """
    variance = build("variance", config["variance"])
    if variance.outputs or run.module.variance.outputs:
        raise UsageError(
            "variance: one that is learned belongs to its network; only a fixed variance can stand for "
            "another fixed one"
        )
    run.module.variance = variance
