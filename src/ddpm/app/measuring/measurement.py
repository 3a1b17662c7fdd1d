"""A run that evaluate.py measures: checked against what is asked, and measured."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.as_trained import own_data, show_as_to
from ddpm.app.build import describe
from ddpm.app.devices import is_sharded
from ddpm.app.measuring.drawn import drawing_of
from ddpm.app.measuring.drawn_quality import DrawnQuality
from ddpm.app.measuring.measurements import summary
from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.cache import Cache
from ddpm.diffusion.condition import condition_in_words
from ddpm.errors import UsageError
from ddpm.evaluation.kept import Kept
from ddpm.evaluation.metric import Metric
from ddpm.evaluation.nll import BITS, NLL, WORK
from ddpm.evaluation.progressive import Progressive
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.run import Run
from ddpm.runtime.compilation import keep_compiled
from ddpm.runtime.computing import choose
from ddpm.runtime.progress import duration
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.batches import WORTH_A_WORD, images_at_once, seconds_a_use
from ddpm.sampling.conditions import HeldOut
from ddpm.targets import build

log = logging.getLogger(__name__)


class Metrics(NamedTuple):
    """What is measured, by name.

    Attributes:
        of_model: of the network and images.
        of_samples: of what it draws.
    """

    of_model: Mapping[str, Metric]
    of_samples: Mapping[str, QualityMetric]


def metrics_of(config: Mapping[str, Any]) -> Metrics:
    """The metrics that a configuration names, built.

    Raises:
        UsageError: where there are none, or keys are set that none of them uses.
    """
    every = {name: build(f"metrics.{name}", node) for name, node in config["metrics"].items() if node}
    if not every:
        raise UsageError("metrics: nothing is to be measured; choose metrics=[OPTION,...]")
    of_samples = {name: metric for name, metric in every.items() if isinstance(metric, QualityMetric)}
    of_model: dict[str, Metric] = {name: metric for name, metric in every.items() if name not in of_samples}
    _check_unused(config, of_samples, any(isinstance(metric, Progressive) for metric in of_model.values()))
    return Metrics(of_model, of_samples)


def draw_under_held_out(run: Run, data: ImageDataModule) -> None:
    """Have a run that needs a condition draw under those of the images that data hold out, in turn.

    Raises:
        UsageError: where they are other images, or have no such condition.
    """
    if not run.module.is_conditioned:
        return
    _check_data(run, data)
    if data.condition_sizes != run.module.condition_sizes:
        here, there = (
            condition_in_words(*sizes) for sizes in (data.condition_sizes, run.module.condition_sizes)
        )
        raise UsageError(f"data: this run is conditioned on {there}, and these images have {here}")
    show_as_to(run, data)
    run.module.conditions = HeldOut(data)


def data_of(run: Run, config: Mapping[str, Any]) -> ImageDataModule:
    """The run's own images, or those of the command line.

    Raises:
        UsageError: where there are none.
    """
    return own_data(run, config)


def _refuse_latents(metrics: Metrics) -> None:
    """Refuse what is of images of 256 levels."""
    if metrics.of_samples:
        raise UsageError(
            f"metrics={next(iter(metrics.of_samples))}: compares pictures, and this run draws latents; "
            "decode them by sample.py format=png (data.vae in the run), and measure them by evaluate.py "
            "samples=DIR data=OPTION, the images that were encoded"
        )
    name = next(iter(metrics.of_model))
    raise UsageError(
        f"metrics={name}: is of the decoder of 8-bit images, which latents do not have; what training "
        "says of held-out latents is val/loss"
    )


class Measurement:
    """What is measured of one run; checked here, as far as no extractor is needed.

    Args:
        run: that is measured; gets the sampler, guidance and variance of the command line.
        config: of the command line.
        metrics: what is measured.
        data: the images; their classes are brought into the order of the run's.

    Raises:
        UsageError: where something does not fit.
    """

    def __init__(self, run: Run, config: Mapping[str, Any], metrics: Metrics, data: ImageDataModule):
        self.run, self.config, self.metrics, self.data = run, config, metrics, data
        self.quality: DrawnQuality | None = None
        if run.module.draws_latents:
            _refuse_latents(metrics)
        if metrics.of_samples:
            measuring.check_samples(metrics.of_samples, config["n"], run.module.num_classes is not None)
        if config["variance"]:
            _swap_variance(run, config)
        if config["sampler"] or config["guidance"]:
            drawing = drawing_of(run, config)
            run.module.sampler, run.module.guidance = drawing.sampler, drawing.guidance
        _check_data(run, data)
        for metric in metrics.of_model.values():
            try:
                metric.check(run.module, data)
            except ValueError as error:
                raise UsageError(str(error)) from error

    def prepare(self, comparison: Comparison | None, trainer: Trainer) -> None:
        """Check the rest, and choose how the network is computed.

        Args:
            comparison: what samples are compared with; None where none are drawn.
            trainer: of the devices.

        Raises:
            UsageError: where something does not fit.
        """
        if comparison is not None:
            drawing = drawing_of(self.run, self.config)
            self.quality = DrawnQuality(
                self.run, self.config, drawing, self.metrics.of_samples, comparison, trainer.world_size
            )
        may_choose = self.quality is not None and not is_sharded(trainer)
        try:
            computing = choose(
                trainer.strategy.root_device,
                self.run.module.num_parameters,
                0 if self.quality is None else self.quality.evaluations,
                precision=self.config["trainer"]["precision"],
                **{name: self.config[name] if may_choose else False for name in ("channels_last", "compile")},
            )
        except UsageError as error:  # about the precision
            raise UsageError(f"trainer.{error}") from error
        self.run.module.compute_as(computing)

    def seconds(self, sharing: Sharing, *, references: bool = True) -> dict[str, float]:
        """How long each part will take, by its name, but for what is there from an earlier start.

        Args:
            sharing: of the work, which has not begun.
            references: whether features of references count too.
        """
        found = {}
        for name, metric in self.metrics.of_model.items():
            if isinstance(metric, Progressive):
                found[name] = metric.seconds(
                    self.run.module, self.data, batch_size=self._at_once, sharing=sharing.of(name)
                )
            if isinstance(metric, NLL) and (n := sharing.of(name).missing(WORK, metric.images(self.data))):
                at_once = min(self._at_once, n)
                uses = metric.nfe(self.run.module) * n / at_once / sharing.world_size
                found[name] = seconds_a_use(self.run.module, at_once) * uses
        if self.quality is not None:
            found |= self.quality.seconds(sharing, references=references)
        return found

    def measure(self, directory: Path, sharing: Sharing, kept: Kept | None = None) -> dict[str, Any]:
        """Measure on all devices, and say each value.

        Args:
            directory: for figures.
            sharing: of the work.
            kept: takes what values are made of, if somebody compares them.

        Returns:
            plain containers for metrics.json; all of them for the leader only.
        """
        run, config = self.run, self.config
        if run.module.computing.compile:
            keep_compiled(Cache().directory / "compiled")
            run.module.network.compile()
        found: dict[str, Any] = {
            "ckpt": str(run.checkpoint),
            "step": run.step,
            "weights": config["weights"],
            **({} if run.module.sigma_rel is None else {"sigma_rel": run.module.sigma_rel}),
            "seed": config["seed"],
            "data": describe(self.data),
            "settings": {
                **{group: run.config[group] for group in ("schedule", "objective", "conditional")},
                "variance": config["variance"] or run.config["variance"],
                "metrics": config["metrics"],
            },
        }
        for name, metric in self.metrics.of_model.items():
            with run.module.evaluating(config["weights"]):
                found[name] = metric(
                    run.module,
                    self.data,
                    seed=config["seed"],
                    batch_size=self._at_once,
                    directory=directory,
                    sharing=sharing.of(name),
                )
            if sharing.is_leader:
                terminal.say(summary(name, found[name]))
                if kept is not None and isinstance(metric, NLL):
                    kept.keep(name, BITS, metric.evidence(self.data, sharing.of(name)))
        if self.quality is not None:
            for name, values in self.quality.measure(directory, sharing, kept).items():
                found[name] = values
                terminal.say(summary(name, values))
        return found

    @property
    def _at_once(self) -> int:
        return self.config["batch_size"] or images_at_once(self.run.module)


def announce(seconds: Mapping[str, float]) -> None:
    """Say how long it will take in all, where that is worth a word."""
    if sum(seconds.values()) > WORTH_A_WORD:
        parts = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if value >= 1)
        log.info("measuring: about %s (%s)", duration(sum(seconds.values())), parts)


def _check_data(run: Run, data: ImageDataModule) -> None:
    """Refuse images of another shape or of other classes than the run's.

    Raises:
        UsageError: naming both.
    """
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
            f"data: its classes are {some(theirs)}, and this run was trained with conditional=true on "
            f"{some(run.module.classes)}"
        )


def some(classes: Sequence[str] | None) -> str:
    """The first classes by name."""
    named = ", ".join((classes or ())[:5])
    return f"{named} ..." if len(classes or ()) > 5 else named or "none"


def _check_unused(config: Mapping[str, Any], of_samples: Mapping[str, QualityMetric], draws: bool) -> None:
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


def _swap_variance(run: Run, config: Mapping[str, Any]) -> None:
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
