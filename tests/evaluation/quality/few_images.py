"""A few images, and an extractor of averages, by which measures of samples are quick."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.prepared.cache import Cache
from ddpm.evaluation.extractors.classifier import Classifier
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.quality import measuring
from ddpm.evaluation.quality.material import Samples
from ddpm.evaluation.quality.measuring import Comparison
from ddpm.evaluation.quality.metric import QualityMetric
from ddpm.runtime.sharing import Sharing

NUM_CLASSES = 3
NAME = "ema_ddim20"


def images(index: int, n: int) -> np.ndarray:
    """uint8 [n, 1, 4, 4]; not all sets are of one distribution."""
    generator = np.random.Generator(np.random.Philox(key=21, counter=[0, 0, 0, index]))
    return generator.integers(10 * index, 256, (n, 1, 4, 4), dtype=np.uint8)


def data_set(train: int = 60, validation: int = 40, index: int = 1) -> DataSet:
    sets = (images(index, train), images(index + 1, validation))
    return DataSet(*(ImageSet(part, np.arange(len(part)) % NUM_CLASSES) for part in sets), list("abc"))


class Averages(Extractor):
    """8 averages of 2 neighbouring pixels, and as many classes as there are."""

    name: ClassVar[str] = "averages"
    resize: ClassVar[str] = "none"
    channels: ClassVar[int | None] = None

    def __init__(self, checksum: str = "ab", *, bf16: bool = False):
        super().__init__(bf16=bf16)
        self._checksum = checksum
        self.computed = 0

    @property
    def num_features(self) -> int:
        return 8

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        self.device = torch.device(device)

    def _features(self, images: Tensor) -> Tensor:
        self.computed += len(images)
        return images.flatten(1).unflatten(1, (8, 2)).mean(2) / 255

    def logits(self, features: Tensor) -> Tensor | None:
        return 9 * features[:, :NUM_CLASSES]


class Judge(Classifier):
    """The class is that of the largest of the first three averages."""

    num_features = Averages.num_features  # type: ignore[assignment]
    accuracy = 0.9  # type: ignore[assignment]
    _features = Averages._features  # type: ignore[assignment]
    logits = Averages.logits  # type: ignore[assignment]
    computed, _fingerprint = 0, "ef"


def drawn(n: int = 50, shown: np.ndarray | None = None) -> Samples:
    found = images(3, n) if shown is None else shown
    return Samples(
        n=len(found),
        read=lambda indices: found[indices.start : indices.stop],
        name=NAME,
        about={"weights": "ema"},
        asked=np.arange(len(found)) % NUM_CLASSES,
    )


def features(shown: np.ndarray) -> Tensor:
    return Averages()(torch.from_numpy(shown))


def compared(
    metrics: Mapping[str, QualityMetric],
    cache: Path,
    data: DataSet | None = None,
    extractor: Extractor | None = None,
    reference: str = "train",
) -> Comparison:
    chosen = extractor or Averages()
    return Comparison(data or data_set(), reference, dict.fromkeys(metrics, chosen), Cache(cache))


def measured(
    metrics: Mapping[str, QualityMetric],
    directory: Path,
    samples: Samples | None = None,
    comparison: Comparison | None = None,
    sharing: Sharing | None = None,
) -> dict[str, dict[str, Any]]:
    """What `measure` finds, and that the pieces are gone."""
    own = sharing or Sharing(directory / "pieces")
    found = measuring.measure(
        metrics,
        samples or drawn(),
        comparison or compared(metrics, directory / "cache"),
        seed=0,
        directory=directory,
        sharing=own,
    )
    own.end()
    return found
