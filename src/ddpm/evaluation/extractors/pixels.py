"""The pixels themselves as features, for small pictures and for finding copies."""

from typing import ClassVar

import torch
from torch import Tensor

from ddpm.data.images import DataSet
from ddpm.evaluation.extractors.extractor import Extractor


class Pixels(Extractor):
    """Every value of an image, in [0, 1]: D is channels times height times width."""

    name: ClassVar[str] = "pixels"
    resize: ClassVar[str] = "none"
    channels: ClassVar[int | None] = None

    def __init__(self) -> None:
        super().__init__()

    @property
    def num_features(self) -> int:
        return self._num_features

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        channels, height, width = data.image_shape
        self._num_features = channels * height * width
        self.device = torch.device(device)

    def _features(self, images: Tensor) -> Tensor:
        if images[0].numel() != self._num_features:
            raise ValueError(
                f"extractor=pixels: images of {images[0].numel()} values, not of {self._num_features} as the "
                "data"
            )
        return images.flatten(1) / 255
