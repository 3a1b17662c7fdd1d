"""Features of a small network that is trained on the labels of the data set itself, as of digits."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.prepared.cache import Cache, key
from ddpm.errors import UsageError
from ddpm.evaluation.extractors.classifier_network import NUM_FEATURES, accuracy, loaded, trained
from ddpm.evaluation.extractors.extractor import Extractor

FORMAT = 1
"""Raised whenever the same data gives another network."""

FILE = "classifier.safetensors"


class Classifier(Extractor):
    """64 features of a network that is trained once for a data set and kept in the cache. Which values are
    good depends on the data set: they compare runs on it, and are never called FID.

    Args:
        cache_dir: None is $DDPM_CACHE or ~/.cache/ddpm.
        bf16: see `Extractor`.
    """

    name: ClassVar[str] = "classifier"
    resize: ClassVar[str] = "averaged to at most 32 pixels a side"
    channels: ClassVar[int | None] = None

    def __init__(self, cache_dir: str | Path | None = None, *, bf16: bool = False):
        super().__init__(bf16=bf16)
        self.cache_dir = cache_dir

    @property
    def num_features(self) -> int:
        return NUM_FEATURES

    @property
    def accuracy(self) -> float:
        """Share of images that it was not trained on whose class it names."""
        return self._accuracy

    def about(self) -> dict[str, Any]:
        return {**super().about(), "accuracy": self.accuracy, "trained_on": self._fingerprint}

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        train, held_out, num_classes = _parts(data)

        def build(folder: Path) -> dict[str, Any]:
            state = trained(train, num_classes)
            save_file(state, folder / FILE)
            return {
                "name": "classifier",
                "accuracy": accuracy(state, held_out),
                "num_classes": num_classes,
                "fingerprint": data.fingerprint,
            }

        of = key({"classifier": FORMAT, "data": data.fingerprint}, ())
        entry = Cache(self.cache_dir).get("classifier", of, build)
        state = load_file(entry.path / FILE)
        self._accuracy = float(entry.about["accuracy"])
        entry.release()
        self._fingerprint = data.fingerprint
        self.device = torch.device(device)
        self._checksum = _checksum(state)
        self._network = loaded(state).to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        return self._network.features(images)

    def logits(self, features: Tensor) -> Tensor | None:
        found: Tensor = self._network.last(features.to(self.device))
        return found


def _parts(data: DataSet) -> tuple[ImageSet, ImageSet, int]:
    """Images to train on, others to be judged by, and the number of classes.

    Raises:
        UsageError: where the data has no labels, or is streamed.
    """
    train, held_out = data.train, data.validation
    if not isinstance(train, ImageSet):
        raise UsageError(
            "extractor=classifier: is trained on images that are held, and these are streamed; choose "
            "another extractor"
        )
    if train.labels is None or not len(train):
        raise UsageError(
            "extractor=classifier: is trained on labels, and the data has none; choose another extractor"
        )
    if data.window is not None:
        train, held_out = train.centre(data.window), held_out.centre(data.window)
    if held_out.labels is None or not len(held_out):
        tenth = np.arange(len(train)) % 10 == 9
        train, held_out = train.subset(np.flatnonzero(~tenth)), train.subset(np.flatnonzero(tenth))
    if not len(held_out):
        raise UsageError(f"extractor=classifier: {len(train)} images are too few to train on")
    assert train.labels is not None
    num_classes = len(data.classes) if data.classes is not None else int(train.labels.max()) + 1
    return train, held_out, num_classes


def _checksum(state: Mapping[str, Tensor]) -> str:
    """sha256 of the weights, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.contiguous().numpy().astype("<f4").tobytes())
    return digest.hexdigest()[:16]
