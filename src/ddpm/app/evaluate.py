"""What evaluate.py does once its configuration is checked."""

import json
import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from ddpm.app import evaluate_samples, terminal
from ddpm.app.build import build_data, describe
from ddpm.app.command_line import Job
from ddpm.app.devices import is_sharded, loading_device
from ddpm.app.drawn import IMAGES, draw, drawing_of
from ddpm.app.measurements import MEASURED, summary
from ddpm.app.own import own_settings
from ddpm.app.quality import comparison_of, contents_of_reference, number_of_samples, save_reference
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.run_record import without_nan
from ddpm.app.shared_work import Work, on_devices
from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.cache import Cache
from ddpm.errors import UsageError
from ddpm.evaluation.metric import Metric
from ddpm.evaluation.nll import NLL, WORK
from ddpm.evaluation.progressive import Progressive
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.drawn import classes_of
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.run import Run, load
from ddpm.runtime.compilation import keep_compiled
from ddpm.runtime.computing import choose
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.progress import duration
from ddpm.runtime.sharing import Sharing, size_of_a_piece
from ddpm.runtime.writing import write_whole
from ddpm.sampling.batches import WORTH_A_WORD, images_at_once, seconds_a_use, seconds_to_draw
from ddpm.targets import build
from ddpm.training.checkpoints.archive import fingerprint

log = logging.getLogger(__name__)


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be measured, or the samples, and the images to measure it with.

    Raises:
        UsageError: where there are none, or the settings make no sense.
    """
    torch.backends.cudnn.allow_tf32 = False  # bits per dimension are worth the time
    if config["samples"]:
        return on_devices(config, place, partial(evaluate_samples.work, config, place))
    return on_devices(config, place, partial(_work, config, place))


def _work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be measured; None where all of it is there."""
    run = load(config["ckpt"], loading_device(trainer), config["allow_targets"])
    if run.module.device.type == "cpu":
        keep_freed_memory()
    every = {name: build(f"metrics.{name}", node) for name, node in config["metrics"].items() if node}
    if not every:
        raise UsageError("metrics: nothing is to be measured; choose metrics=[OPTION,...]")
    of_samples = {name: metric for name, metric in every.items() if isinstance(metric, QualityMetric)}
    metrics: dict[str, Metric] = {name: metric for name, metric in every.items() if name not in of_samples}
    _check_unused(config, of_samples, any(isinstance(metric, Progressive) for metric in metrics.values()))
    if config["sampler"] or config["guidance"]:
        drawing = drawing_of(run, config)
        run.module.sampler, run.module.guidance = drawing.sampler, drawing.guidance
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
    contents |= contents_of_reference(config)
    request = Request(config, contents)
    if place.request is not None:
        place.request.refuse_another(directory, config, contents)
        if (directory / MEASURED).exists():
            if trainer.is_global_zero:
                terminal.say(f"{directory}: holds these measurements already")
            return None
    quality = _Quality(run, config, data, of_samples, trainer) if of_samples else None
    _compute_as(run, config, trainer, quality)

    def begin() -> None:
        log.info("measuring %s, step %d, %s weights", run.checkpoint, run.step, config["weights"])
        request.write(directory)

    def share(sharing: Sharing) -> None:
        if run.module.computing.compile:
            keep_compiled(Cache().directory / "compiled")
            run.module.network.compile()
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
        if sharing.is_leader and not sharing.in_step:
            _announce(
                {
                    **_seconds_of_bounds(run, metrics, data, config["batch_size"], sharing),
                    **({} if quality is None else quality.seconds(sharing)),
                }
            )
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
        if quality is not None:
            for name, values in quality.measure(directory, sharing).items():
                found[name] = values
                terminal.say(summary(name, values))
        if sharing.is_leader:
            write_whole(directory / MEASURED, json.dumps(without_nan(found), indent=2) + "\n")
            terminal.say(str(directory))

    weights = {} if quality is None else quality.comparison.checksums
    identity = {**contents, **weights, **request.texts()}
    return Work("evaluate.log", "measuring", run.module, identity, begin, share)


class _Quality:
    """Samples of a run, and what is measured of them; checked here.

    Raises:
        UsageError: where something does not fit.
    """

    def __init__(
        self,
        run: Run,
        config: dict[str, Any],
        data: ImageDataModule,
        metrics: dict[str, QualityMetric],
        trainer: Trainer,
    ):
        self.run, self.config, self.metrics = run, config, metrics
        measuring.check_samples(metrics, config["n"], run.module.num_classes is not None)
        self.drawing = drawing_of(run, config)
        self.comparison = comparison_of(metrics, config, data.data_set, trainer.strategy.root_device)
        self.n = number_of_samples(config, self.comparison)
        self.asked = classes_of(run.module, data.data_set, self.n)
        measuring.check(metrics, self.n, self.asked is not None, self.comparison)
        at_once = config["batch_size"] or images_at_once(run.module)
        self.size = size_of_a_piece(self.n, at_once, trainer.world_size)
        self.evaluations = self.drawing.nfe * math.ceil(self.n / self.size / trainer.world_size)

    def seconds(self, sharing: Sharing) -> dict[str, float]:
        """How long drawing and features will take, but for what is there from an earlier start."""
        left = sharing.missing(IMAGES, self.n)
        drawn = seconds_to_draw(self.drawing, range(left), self.size) if left else 0.0
        features = measuring.seconds_to_extract(self.metrics, self.n, self.comparison, sharing)
        return {"sampling": drawn / sharing.world_size, "features": features / sharing.world_size}

    def measure(self, directory: Path, sharing: Sharing) -> dict[str, dict[str, Any]]:
        """Draw the samples on all devices, and measure them; only the leader has the values."""
        settings = {group: own_settings(self.run, self.config, group) for group in ("sampler", "guidance")}
        settings["variance"] = self.config["variance"] or self.run.config["variance"]
        samples = draw(self.run, self.drawing, self.n, self.asked, self.size, settings, sharing)
        found = measuring.measure(
            self.metrics,
            samples,
            self.comparison,
            seed=self.config["seed"],
            directory=directory,
            sharing=sharing,
        )
        save_reference(self.config, self.metrics, self.comparison, sharing)
        return found


def _seconds_of_bounds(
    run: Run, metrics: dict[str, Metric], data: ImageDataModule, batch_size: int | None, sharing: Sharing
) -> dict[str, float]:
    """How long bits per dimension and samples on their way will take, by the name of the metric."""
    found = {}
    for name, metric in metrics.items():
        if isinstance(metric, Progressive):
            at_once = batch_size or images_at_once(run.module)
            found[name] = metric.seconds(run.module, data, batch_size=at_once, sharing=sharing.of(name))
        if isinstance(metric, NLL) and (n := sharing.of(name).missing(WORK, metric.images(data))):
            at_once = min(batch_size or images_at_once(run.module), n)
            uses = metric.nfe(run.module) * n / at_once / sharing.world_size
            found[name] = seconds_a_use(run.module, at_once) * uses
    return found


def _announce(seconds: dict[str, float]) -> None:
    """Say how long it will take in all, where that is worth a word."""
    if sum(seconds.values()) > WORTH_A_WORD:
        parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if value >= 1)
        log.info("measuring: about %s (%s)", duration(sum(seconds.values())), parts)


def _compute_as(run: Run, config: dict[str, Any], trainer: Trainer, quality: _Quality | None) -> None:
    """Choose precision, layout and compilation.

    Raises:
        UsageError: about the precision.
    """
    may_choose = quality is not None and not is_sharded(trainer)
    try:
        computing = choose(
            trainer.strategy.root_device,
            run.module.num_parameters,
            0 if quality is None else quality.evaluations,
            precision=config["trainer"]["precision"],
            **{name: config[name] if may_choose else False for name in ("channels_last", "compile")},
        )
    except UsageError as error:
        raise UsageError(f"trainer.{error}") from error
    run.module.compute_as(computing)


def _check_unused(config: dict[str, Any], of_samples: dict[str, QualityMetric], draws: bool) -> None:
    """Refuse keys that are for metrics of samples where there are none.

    Args:
        config: of the command line.
        of_samples: the metrics that they are for.
        draws: whether another one draws samples of its own.

    Raises:
        UsageError: for the first.
    """
    if of_samples:
        return
    for key in ("n", "sampler", "guidance", "extractor", "save_reference"):
        if config[key] and not (draws and key in ("sampler", "guidance")):
            raise UsageError(
                f"{key}: is for metrics of samples, and {', '.join(config['metrics'])} takes no such key; "
                "choose metrics=[fid] or another of them"
            )
    if config["reference"] != "train":
        raise UsageError(
            f"reference={config['reference']}: is for metrics of samples, and none is chosen; choose "
            "metrics=[fid] or another of them"
        )


def _some(classes: Sequence[str] | None) -> str:
    named = ", ".join((classes or ())[:5])
    return f"{named} ..." if len(classes or ()) > 5 else named or "none"


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
