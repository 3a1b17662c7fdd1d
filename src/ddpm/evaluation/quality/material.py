"""What measures of samples are computed from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.data.images import ImageSet
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.kept import Keep, nothing
from ddpm.evaluation.measures.frechet import FrechetTo
from ddpm.evaluation.measures.moments import Gaussian, gaussian


@dataclass(frozen=True)
class Samples:
    """Images that are to be measured, wherever they come from.

    Attributes:
        n: how many.
        read: the images at neighbouring indices, uint8 [K, C, H, W].
        name: where they come from, in the name of a value: ema_ancestral1000.
        about: the same in full, in plain containers.
        asked: the class that each was asked to be, int64 [n]; None where there are no classes.
    """

    n: int
    read: Callable[[range], np.ndarray]
    name: str
    about: dict[str, Any]
    asked: np.ndarray | None = None


@dataclass(frozen=True)
class Reference:
    """Features that samples are compared with.

    Attributes:
        name: of the images, in the name of a value: train, validation, or that of a file.
        n: how many images there are.
        about: the same in full, in plain containers.
        features: float32 [K, D], of at most 50,000 of the images; None where only a file of statistics is
            known.
        known: mean and covariance of all images, where they are kept.
        images: that the features are of, row by row; None where a file is all that is known.
        indices: of those images among all of the reference, int64 [K]; None where they are all.
    """

    name: str
    n: int | None
    about: dict[str, Any]
    features: Tensor | None = None
    known: Gaussian | None = None
    images: ImageSet | None = field(default=None, repr=False)
    indices: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def moments(self) -> Gaussian:
        """Mean and covariance."""
        if self.known is not None:
            return self.known
        assert self.features is not None
        return gaussian(self.features)

    @cached_property
    def to_moments(self) -> FrechetTo:
        """The Frechet distance to them, for all that take it."""
        return FrechetTo(self.moments)


@dataclass(frozen=True)
class Material:
    """All that a measure of samples may look at.

    Attributes:
        samples: that are measured.
        features: of the samples, float32 [M, D].
        extractor: that the features are of.
        reference: what the samples are compared with.
        training: the images that were trained on, and
        held_out: those that were held out; both only for measures that compare with both.
        directory: for figures.
        seed: of what is drawn.
        progressed: called now and then by what takes long.
        keep: takes what a value is made of, for comparisons with other runs.
    """

    samples: Samples
    features: Tensor
    extractor: Extractor
    reference: Reference | None
    training: Reference | None
    held_out: Reference | None
    directory: Path
    seed: int
    progressed: Callable[[], None]
    keep: Keep = nothing

    @property
    def logits(self) -> Tensor | None:
        """Of the samples, float32 [M, K]; None where the extractor has no classes."""
        parts = [self.extractor.logits(part) for part in self.features.split(4096)]
        if any(part is None for part in parts):
            return None
        return torch.cat([part.cpu() for part in parts if part is not None])

    def named(self, measure: str, setting: str = "", *, with_reference: bool = True) -> str:
        """The name of a value, which says all that it depends on: fid50k_train_inception_ema_ancestral1000.

        Args:
            measure: what is measured.
            setting: of the measure, where it is not the usual one: k5, splits1.
            with_reference: whether a reference takes part in it.
        """
        reference = self.reference.name if with_reference and self.reference is not None else ""
        words = [
            f"{measure}{in_thousands(self.samples.n)}",
            setting,
            reference,
            self.extractor.name + ("_bf16" if self.extractor.bf16 else ""),
            self.samples.name,
        ]
        return "_".join(word for word in words if word)


def in_thousands(n: int) -> str:
    """50k, 2k; 1437 and 360 as they are."""
    return f"{n // 1000}k" if n >= 1000 and n % 1000 == 0 else str(n)
