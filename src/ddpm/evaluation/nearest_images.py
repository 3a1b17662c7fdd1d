"""Training images that are nearest to what a run draws at its end."""

import logging

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.data.images import ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.evaluation import neighbours_figure
from ddpm.sampling.figures.style import styled
from ddpm.training.callbacks.interruption import leader_alone
from ddpm.training.callbacks.samples import KEPT, SampleGrids
from ddpm.training.callbacks.shown import DPI, WIDTH, show_figure, spared

log = logging.getLogger(__name__)

MOST_BYTES = 2**28
"""Of the training images that are compared; of large ones they are fewer."""

HELD_OUT, MOST_VALUES = 64, 2**21
"""Held-out images whose distances say what is usual, and their values: of large ones they are fewer."""


class NearestImages(Callback):
    """Shows samples of the last grid beside the training images that are nearest to them by their pixels,
    when training ends: `samples/nearest`, and `figures/nearest.png`. A sample that is a copy stands beside
    what it is a copy of; whether samples are memorised, `metrics=[nearest]` of `evaluate.py` measures.

    Args:
        n: samples, the first of the grid.
        k: nearest images of each.
        among: training images, at most, from all over the set; fewer where they are large.

    Raises:
        ValueError: where a number is out of range.
    """

    def __init__(self, n: int = 8, k: int = 4, among: int = 10_000):
        if not 1 <= n <= KEPT or min(k, among) < 1:
            raise ValueError(f"n={n} must be from 1 to {KEPT}, and k={k} and among={among} at least 1")
        self.n = n
        self.k = k
        self.among = among

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with leader_alone(trainer) as alone, spared("samples/nearest"):
            if alone:
                self._draw(trainer)

    def _draw(self, trainer: Trainer) -> None:
        grids = [found for found in _callbacks(trainer) if isinstance(found, SampleGrids) and found.last]
        data = getattr(trainer, "datamodule", None)
        if not grids or not isinstance(data, ImageDataModule):
            log.info("NearestImages: nothing is compared, as there is no grid, or no data module of ours")
            return
        assert grids[-1].last is not None
        training, held_out = data.data_set.pictures.train, data.data_set.pictures.validation
        if not isinstance(training, ImageSet):
            log.info("NearestImages: nothing is compared, as training images are streamed and none are held")
            return
        if data.data_set.latents is not None:
            log.info(
                "NearestImages: nothing is compared, as samples are latents, which are not seen as they are"
            )
            return
        if data.data_set.window is not None:
            training = training.centre(data.data_set.window)
        total = len(training)
        step, samples = grids[-1].last
        pool = _some(training, min(self.among, max(1, MOST_BYTES // samples[0].numel())))
        samples, k = samples[: self.n], min(self.k, len(pool))
        few = min(HELD_OUT, max(1, MOST_VALUES // samples[0].numel()))
        usual = _some(held_out, few) if len(held_out) else None
        with styled(), torch.no_grad():
            figure = neighbours_figure.draw(samples, pool, usual, k=k, width=WIDTH, dpi=DPI)
            of_all = "" if len(pool) == total else f" of {total:,}"
            caption = (
                f"step {step:,}: {len(samples)} samples of the grid, and the {k} nearest of "
                f"{len(pool):,}{of_all} training images by Euclidean distance of pixels"
            )
            show_figure(trainer, "samples/nearest", figure, caption)


def _some(images: ImageSet, most: int) -> ImageSet:
    """Up to so many images, evenly from all over a set, in memory of their own."""
    n = min(most, len(images))
    return images.copy(np.arange(n) * len(images) // max(1, n))


def _callbacks(trainer: object) -> list[Callback]:
    return list(getattr(trainer, "callbacks", ()))  # Lightning's own type hints do not know of it
