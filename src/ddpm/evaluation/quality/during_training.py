"""How good samples are as the network learns."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.data.prepared.cache import Cache
from ddpm.diffusion.samplers import Sampler
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.quality import measuring, watching
from ddpm.evaluation.quality.cost import Cost, say_after, say_before, stretched, timed
from ddpm.evaluation.quality.drawn import classes_of, name_of
from ddpm.evaluation.quality.material import Material, Reference, Samples, in_thousands
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.reference import of_data, of_file
from ddpm.evaluation.quality.shared_drawing import AskedToEnd, features_of_samples, look_out, pieces_of
from ddpm.runtime.progress import Pause
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.drawing import Drawing
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import end_if_asked, leader_alone, progressed, together
from ddpm.training.metrics import log_scalars
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)


class SampleQuality(EveryNSteps):
    """Measures few samples in few steps as the network learns, and at the end of training: `samples/NAME` in
    every logger, NAME being the metric's. What watches such a value, as `best` does, looks whenever it is
    measured.

    Sample i starts from noise keyed by (seed, i), at every step of every run. They are drawn with the
    averaged weights, by all devices, in the precision of the training; the first of them measures. A value is
    that of `evaluate.py` with the same settings of metric and sampler, in the same precision. It is compared
    with values of the same name alone: few samples have a bias.

    Before the first step the reference is computed, or found in the cache, and everything is timed. Where
    measuring would take more than its share of the training, it is done less often. What was chosen is in the
    checkpoints, and so is the step whose value was looked at last: a run that goes on from there measures it
    again, and nobody counts it twice.

    Args:
        metrics: by name; None for one that is left out.
        sampler: that draws the samples.
        extractor: in place of the metrics' own.
        every_n_steps: optimizer steps between measurements.
        n: samples.
        reference: "train", "validation", or a file of mean and covariance.
        seed: of the noise.
        share: of the time of training, that measuring may take, the measurement at the end apart; None for
            any.

    Raises:
        ValueError: where a setting is out of range.
    """

    def __init__(
        self,
        metrics: Mapping[str, QualityMetric | None],
        sampler: Sampler,
        extractor: Extractor | None = None,
        every_n_steps: int = 10_000,
        n: int = 500,
        reference: str = "train",
        seed: int = 0,
        share: float | None = 0.1,
    ):
        super().__init__(every_n_steps)
        self.metrics = {name: metric for name, metric in metrics.items() if metric is not None}
        if not self.metrics:
            raise ValueError("metrics: nothing is to be measured; name at least one")
        if n < 1:
            raise ValueError(f"n={n} must be at least 1")
        if share is not None and not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0 and at most 1, or null")
        for name, metric in self.metrics.items():
            if metric.compares_both:
                raise ValueError(
                    f"metrics.{name}: looks at the images themselves, which are not kept; measure it "
                    "afterwards, by evaluate.py"
                )
        self.sampler = sampler
        self.extractor = extractor
        self.n = n
        self.reference = reference
        self.seed = seed
        self.share = share
        self.asked_for = every_n_steps
        self.names: dict[str, str] = {}
        """Of what is logged, such as samples/fid: the names that say all that a value depends on."""
        self._chosen = False  # how often it is measured
        self._cost: Cost | None = None  # where it was timed by this start
        self._measured_at = -1
        self._looked_at = -1
        self._seconds, self._began = 0.0, 0.0
        self._comparison: Comparison | None = None
        self._asked: np.ndarray | None = None
        self._references: dict[Extractor, Reference | None] = {}  # of the leader

    def measures(self, name: str) -> bool:
        """Whether this logs a value of that name."""
        return any(name == f"samples/{own}" or name.startswith(f"samples/{own}/") for own in self.metrics)

    @property
    def state_key(self) -> str:
        """With its settings: by others another interval may be chosen."""
        return self._generate_state_key(
            metrics=sorted(self.metrics),
            every_n_steps=self.asked_for,
            n=self.n,
            share=self.share,
            sampler=[type(self.sampler).__name__, self.sampler.spacing.num_steps],
        )

    def state_dict(self) -> dict[str, Any]:
        chosen = {"every_n_steps": self.every_n_steps} if self._chosen else {}
        return {**chosen, "looked_at": self._looked_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "every_n_steps" in state_dict:
            self.every_n_steps, self._chosen = int(state_dict["every_n_steps"]), True
        self._looked_at = int(state_dict.get("looked_at", -1))

    # Before training

    def check(self, module: DDPM, data: ImageDataModule, device: torch.device | str = "cpu") -> None:
        """Have the weights of extractors ready, and refuse what cannot be measured.

        Raises:
            UsageError: naming what does not fit, and the way out.
        """
        if module.draws_latents:
            raise UsageError("compares pictures, and this run draws latents; leave it out")
        try:
            self._drawing(module)
        except ValueError as error:
            raise UsageError(str(error)) from error
        chosen = measuring.extractors_for(self.metrics, self.extractor)
        comparison = Comparison(data.data_set.pictures, self.reference, chosen, Cache())
        if comparison.file is not None and not comparison.file.is_file():
            raise UsageError(
                f"reference={self.reference}: must be train, validation, or a file, and there is none"
            )
        for extractor in dict.fromkeys(chosen.values()):
            extractor.check(comparison.data.image_shape[0])
            extractor.prepare(comparison.data, device)
        self._asked = classes_of(module, comparison.data, self.n)
        measuring.check(self.metrics, self.n, self._asked is not None, comparison)
        self._comparison = comparison

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule) or not isinstance(pl_module, DDPM):
            raise ValueError(
                f"{type(self).__name__}: compares the samples of a DDPM with the images of "
                "ddpm.data.ImageDataModule, given as trainer.fit(datamodule=...); leave it out, or measure "
                "the checkpoint afterwards"
            )
        self.check(pl_module, data, trainer.strategy.root_device)
        watching.wait_for(trainer, self.measures)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the reference ready, and choose how often it is measured."""
        module: Any = pl_module
        comparison = self._comparison
        assert comparison is not None
        with leader_alone(trainer) as alone:
            if alone:
                for extractor in dict.fromkeys(comparison.extractors.values()):
                    self._references[extractor] = self._reference(trainer, extractor, comparison)
                    progressed(trainer)
        if self._chosen:
            return
        pieces = pieces_of(trainer, module, self.n)
        with together(trainer) if module.is_sharded else leader_alone(trainer) as times:
            cost = self._timed(trainer, module, pieces) if times else None
        self._cost = cost = trainer.strategy.broadcast(cost)
        assert cost is not None
        self.every_n_steps = stretched(self.asked_for, cost, self.share)
        self._chosen = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a step that comes again
        if self._measured_at > trainer.global_step:
            self._measured_at = -1
        if self._looked_at > trainer.global_step:
            self._looked_at = -1
        self._seconds, self._began = 0.0, time.perf_counter()
        if trainer.is_global_zero:
            what = f"{', '.join(f'samples/{name}' for name in self.metrics)} of {self.n:,} samples"
            every_n_steps, steps = self.every_n_steps, trainer.max_steps
            say_before(what, every_n_steps, self.asked_for, self.share, self._cost, steps)

    def _reference(self, trainer: Trainer, extractor: Extractor, comparison: Comparison) -> Reference | None:
        """What samples are compared with by the features of an extractor; None where they are not."""
        of_this = [
            metric for name, metric in self.metrics.items() if comparison.extractors[name] is extractor
        ]
        if not any(metric.compares for metric in of_this):
            return None
        found = self._found(trainer, extractor, comparison)
        if found.known is not None and not any(metric.features_of_reference for metric in of_this):
            found = replace(found, features=None)
        if any(metric.needs_covariance for metric in of_this):
            _ = found.to_moments  # is made once, and so is no part of what a measurement takes
        return found

    def _found(self, trainer: Trainer, extractor: Extractor, comparison: Comparison) -> Reference:
        if comparison.file is not None:
            return of_file(comparison.file, extractor.num_features)
        # of another extractor nothing that is left there may be taken
        pieces = Path(trainer.default_root_dir) / "pieces" / (extractor.checksum or extractor.name)
        sharing = Sharing(pieces, progressed=lambda waits: progressed(trainer))
        split: Any = self.reference
        found = of_data(comparison.data, split, extractor, sharing, comparison.cache)
        sharing.end()
        with suppress(OSError):
            pieces.parent.rmdir()
        return found

    def _timed(self, trainer: Trainer, module: DDPM, pieces: list[range]) -> Cost:
        comparison, datamodule = self._comparison, getattr(trainer, "datamodule", None)
        assert comparison is not None
        assert isinstance(datamodule, ImageDataModule)
        drawing = self._drawing(module)

        def measure(stand_ins: Mapping[Extractor, Tensor]) -> None:
            self._values(stand_ins, drawing, lambda: progressed(trainer))

        return timed(
            drawing,
            pieces,
            comparison.extractors.values(),
            world_size=trainer.world_size,
            batch_size=datamodule.batch_size,
            measure=measure if trainer.is_global_zero else None,
        )

    # In training

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        return Pause("quality", self.every_n_steps)

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self._measure(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)
        if trainer.is_global_zero and self._seconds:
            say_after(self._seconds, time.perf_counter() - self._began)

    def _measure(self, trainer: Trainer, module: Any) -> None:
        """Draw, measure and log; give up where the run is asked to end. All ranks call it."""
        if self._measured_at == trainer.global_step:
            return
        begin = time.perf_counter()
        drawing = self._drawing(module)
        with together(trainer):
            features = self._features(trainer, module, drawing)
        values: dict[str, float] = {}
        with leader_alone(trainer) as alone, suppress(AskedToEnd):
            if alone:
                values = self._values(features, drawing, lambda: look_out(trainer))
        end_if_asked(trainer)
        values = trainer.strategy.broadcast(values)
        log_scalars(trainer, values)
        self._measured_at = trainer.global_step
        self._seconds += time.perf_counter() - begin
        if self._looked_at != trainer.global_step:
            watching.look(trainer, self.measures)
            self._looked_at = trainer.global_step  # `best` has saved itself without: it looks again

    def _drawing(self, module: DDPM) -> Drawing:
        return Drawing(module, seed=self.seed, sampler=self.sampler, weights="ema")

    def _features(self, trainer: Trainer, module: DDPM, drawing: Drawing) -> dict[Extractor, Tensor]:
        comparison = self._comparison
        assert comparison is not None
        extractors = comparison.extractors.values()
        return features_of_samples(trainer, module, drawing, extractors, self.n, self._asked)

    def _values(
        self, features: Mapping[Extractor, Tensor], drawing: Drawing, progressed: Callable[[], None]
    ) -> dict[str, float]:
        """What is measured, under its short names."""
        comparison = self._comparison
        assert comparison is not None
        samples = Samples(self.n, _not_kept, name_of(drawing), {}, self._asked)
        found = {}
        with TemporaryDirectory() as directory:  # in which no metric of these leaves anything
            for name, metric in self.metrics.items():
                extractor = comparison.extractors[name]
                material = Material(
                    samples=samples,
                    features=features[extractor],
                    extractor=extractor,
                    reference=self._references[extractor],
                    training=None,
                    held_out=None,
                    directory=Path(directory),
                    seed=self.seed,
                    progressed=progressed,
                )
                values = {key: value for key, value in metric(material).items() if key.endswith(samples.name)}
                for key, value in values.items():
                    short = f"samples/{name}"
                    if len(values) > 1:  # precision and recall
                        short += f"/{key.partition(f'{in_thousands(self.n)}_')[0]}"
                    found[short] = float(value)
                    if self.names.get(short) != key:
                        self.names[short] = key
                        log.info("%s is %s", short, key)
                progressed()
        return found


def _not_kept(indices: range) -> np.ndarray:
    raise LookupError("samples that are measured in training are not kept")
