"""How good samples are as the network learns."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

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
from ddpm.evaluation.quality.drawn import classes_of, name_of
from ddpm.evaluation.quality.features import at_once
from ddpm.evaluation.quality.interval import stretched
from ddpm.evaluation.quality.material import Material, Reference, Samples, in_thousands
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.evaluation.quality.reference import of_data, of_file
from ddpm.random import BLOCK
from ddpm.runtime.arithmetic import STEP
from ddpm.runtime.progress import Countdown, duration
from ddpm.runtime.sharing import Sharing
from ddpm.sampling.batches import images_at_once, seconds_to_draw
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import to_uint8
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import (
    end_if_asked,
    leader_alone,
    progressed,
    received,
    received_anywhere,
    together,
)
from ddpm.training.metrics import log_scalars
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)

PIECES = 8
"""That samples are drawn in, at least, where each still has a block of random numbers: as many devices share
them evenly. They are the same for any number of devices, so that the samples are."""

NEAR_ZERO = 1e-9
"""Seconds of a training step, at least."""


class SampleQuality(EveryNSteps):
    """Measures few samples in few steps as the network learns, and at the end of training: `samples/NAME` in
    every logger, NAME being the metric's. What watches such a value, as `best` does, looks whenever it is
    measured.

    Sample i starts from noise keyed by (seed, i), at every step of every run. They are drawn with the
    averaged weights, by all devices; the first of them measures. A value is that of `evaluate.py` with the
    same settings, and is compared with values of the same settings alone: few samples have a bias.

    Before the first step the reference is computed, or found in the cache, and everything is timed. Where
    measuring would take more than its share of the training, it is done less often. What was chosen is in the
    checkpoints.

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
        self._cost: _Cost | None = None  # where it was timed by this start
        self._measured_at = -1
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
        return {"every_n_steps": self.every_n_steps} if self._chosen else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "every_n_steps" in state_dict:
            self.every_n_steps, self._chosen = int(state_dict["every_n_steps"]), True

    # Before training

    def check(self, module: DDPM, data: ImageDataModule, device: torch.device | str = "cpu") -> None:
        """Have the weights of extractors ready, and refuse what cannot be measured.

        Raises:
            UsageError: naming what does not fit, and the way out.
        """
        try:
            self._drawing(module)
        except ValueError as error:
            raise UsageError(str(error)) from error
        chosen = measuring.extractors_for(self.metrics, self.extractor)
        comparison = Comparison(data.data_set, self.reference, chosen, Cache())
        if comparison.file is not None and not comparison.file.is_file():
            raise UsageError(
                f"reference={self.reference}: must be train, validation, or a file, and there is none"
            )
        for extractor in dict.fromkeys(chosen.values()):
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
        if self._chosen:
            return
        pieces = self._pieces(trainer, module)
        with together(trainer) if module.is_sharded else leader_alone(trainer) as times:
            cost = self._timed(trainer, module, pieces) if times else None
        self._cost = cost = trainer.strategy.broadcast(cost)
        assert cost is not None
        self.every_n_steps = stretched(self.asked_for, cost.measurement, cost.step, self.share)
        self._chosen = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._measured_at > trainer.global_step:
            self._measured_at = -1  # a step that comes again
        self._seconds, self._began = 0.0, time.perf_counter()
        if trainer.is_global_zero:
            self._announce(trainer)

    def _announce(self, trainer: Trainer) -> None:
        what = ", ".join(f"samples/{name}" for name in self.metrics)
        cost, steps = self._cost, trainer.max_steps
        if self.every_n_steps > self.asked_for and self.share is not None:
            log.warning(
                "%s is measured every %s steps, not every %s, to take no more than %.0f%% of the training; "
                "fewer samples (n) or steps (sampler.num_steps) take less, share=null has it all the same",
                what, f"{self.every_n_steps:,}", f"{self.asked_for:,}", 100 * self.share,
            )  # fmt: skip
        often = f"{what} of {self.n:,} samples every {self.every_n_steps:,} steps and at the end"
        if cost is None or steps <= 0:
            log.info("%s", often)
            return
        times = math.ceil(steps / self.every_n_steps)
        share = times * cost.measurement / (steps * cost.step)
        log.info(
            "%s, %s in all, about %s each: %.2g%% of the training",
            often, times, _short(cost.measurement), 100 * share,
        )  # fmt: skip

    def _reference(self, trainer: Trainer, extractor: Extractor, comparison: Comparison) -> Reference | None:
        """What samples are compared with by the features of an extractor; None where they are not."""
        of_this = [
            metric for name, metric in self.metrics.items() if comparison.extractors[name] is extractor
        ]
        if not any(metric.compares for metric in of_this):
            return None
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
        if found.known is not None and not any(metric.features_of_reference for metric in of_this):
            return replace(found, features=None)
        return found

    def _timed(self, trainer: Trainer, module: DDPM, pieces: list[range]) -> "_Cost":
        """What a measurement takes, and a step of the training, by a few evaluations of the network. No rank
        may wait for another in it, but in a sharded network.
        """
        comparison = self._comparison
        assert comparison is not None
        drawing = self._drawing(module)
        rounds = math.ceil(len(pieces) / trainer.world_size)
        piece = seconds_to_draw(drawing, pieces[0], len(pieces[0]))
        forward = piece / drawing.nfe / len(pieces[0])  # of an image
        datamodule: Any = getattr(trainer, "datamodule", None)
        step = STEP * forward * datamodule.batch_size / trainer.world_size
        stand_ins = {}
        for extractor in dict.fromkeys(comparison.extractors.values()):
            images = torch.zeros(
                min(len(pieces[0]), at_once(extractor.device)), *module.image_shape, dtype=torch.uint8
            )
            extractor(images)  # the first call also allocates
            begin = time.perf_counter()
            extractor(images).cpu()
            piece += (time.perf_counter() - begin) * len(pieces[0]) / len(images)
            generator = torch.Generator().manual_seed(0)
            stand_ins[extractor] = torch.randn(self.n, extractor.num_features, generator=generator)
        begin = time.perf_counter()
        if trainer.is_global_zero:
            self._values(stand_ins, drawing, lambda: progressed(trainer))
        return _Cost(rounds * piece + time.perf_counter() - begin, max(step, NEAR_ZERO))

    # In training

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self._measure(trainer, module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, pl_module)
        elapsed = time.perf_counter() - self._began
        if trainer.is_global_zero and self._seconds:
            log.info(
                "measuring samples took %s, %.2g%% of the time", _short(self._seconds),
                100 * self._seconds / elapsed,
            )  # fmt: skip

    def _measure(self, trainer: Trainer, module: Any) -> None:
        """Draw, measure and log; give up where the run is asked to end. All ranks call it."""
        if self._measured_at == trainer.global_step:
            return
        begin = time.perf_counter()
        drawing = self._drawing(module)
        with together(trainer):
            features = self._features(trainer, module, drawing)
        values: dict[str, float] = {}
        with leader_alone(trainer) as alone, suppress(_Asked):
            if alone:
                values = self._values(features, drawing, lambda: _look_out(trainer, received))
        end_if_asked(trainer)
        values = trainer.strategy.broadcast(values)
        log_scalars(trainer, values)
        self._measured_at = trainer.global_step
        self._seconds += time.perf_counter() - begin
        watching.look(trainer, self.measures)

    def _drawing(self, module: DDPM) -> Drawing:
        return Drawing(module, seed=self.seed, sampler=self.sampler, weights="ema")

    def _pieces(self, trainer: Trainer, module: DDPM) -> list[range]:
        """Indices that are drawn at once, whatever the number of devices is. All ranks must call it."""
        blocks = math.ceil(self.n / PIECES / BLOCK)
        size: int = trainer.strategy.broadcast(min(images_at_once(module), blocks * BLOCK))
        return [range(first, min(first + size, self.n)) for first in range(0, self.n, size)]

    def _features(self, trainer: Trainer, module: DDPM, drawing: Drawing) -> dict[Extractor, Tensor]:
        """Of all samples, float32 [n, D] on the CPU; each rank draws its share of them."""
        comparison = self._comparison
        assert comparison is not None
        pieces = self._pieces(trainer, module)
        rounds = math.ceil(len(pieces) / trainer.world_size)
        asked_to_end = received_anywhere if module.is_sharded else received
        found = {
            extractor: torch.zeros(self.n, extractor.num_features)
            for extractor in comparison.extractors.values()
        }
        title = "measuring samples"
        with Countdown(title, drawing.steps * rounds if trainer.is_global_zero else 0) as countdown:

            def on_step(*_: Any) -> None:
                _look_out(trainer, asked_to_end)
                countdown.advance(countdown.done + 1)

            for first in range(0, rounds * trainer.world_size, trainer.world_size):
                own = first + trainer.global_rank
                if own < len(pieces) or module.is_sharded:  # through which all go together
                    with suppress(_Asked):
                        piece = pieces[min(own, len(pieces) - 1)]
                        images = self._drawn(drawing, piece, on_step)
                        if own < len(pieces):
                            for extractor, rows in found.items():
                                parts = images.split(at_once(extractor.device))
                                rows[piece.start : piece.stop] = torch.cat(
                                    [extractor(part).cpu() for part in parts]
                                )
                end_if_asked(trainer)
        if trainer.world_size > 1:  # what others have computed is 0 here
            for extractor, rows in found.items():
                shared = rows.to(trainer.strategy.root_device)
                torch.distributed.all_reduce(shared)
                found[extractor] = shared.cpu()
        return found

    def _drawn(self, drawing: Drawing, piece: range, on_step: Callable[..., None]) -> Tensor:
        """uint8 [len(piece), C, H, W]."""
        labels = None if self._asked is None else torch.from_numpy(self._asked[piece.start : piece.stop])
        return to_uint8(drawing(piece, labels=labels, on_step=on_step))

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


class _Cost(NamedTuple):
    """Seconds."""

    measurement: float
    step: float


class _Asked(Exception):  # noqa: N818 - it is no error
    """Leaves a measurement in the middle."""


def _look_out(trainer: Trainer, asked_to_end: Callable[[Trainer], int]) -> None:
    progressed(trainer)
    if asked_to_end(trainer):
        raise _Asked


def _short(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _not_kept(indices: range) -> np.ndarray:
    raise LookupError("samples that are measured in training are not kept")
