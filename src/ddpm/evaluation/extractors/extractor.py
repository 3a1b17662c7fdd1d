"""What every extractor is."""

import logging
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.data.images import DataSet
from ddpm.errors import UsageError

log = logging.getLogger(__name__)


class Extractor(ABC):
    """Turns images into features. Settings are in the constructor, which does nothing else.

    float32 throughout, without TF32. In bfloat16 a network takes two thirds of the time, and every feature
    differs in its third digit: what is compared must be computed alike.

    Attributes:
        name: in the name of what is measured by it.
        resize: what becomes of the pixels before the network sees them.
        channels: of the images that `_features` takes; None takes them as they are.

    Args:
        bf16: let the network compute in bfloat16 where autocast has it so.
    """

    name: ClassVar[str]
    resize: ClassVar[str]
    channels: ClassVar[int | None] = 3

    def __init__(self, *, bf16: bool = False):
        self.bf16 = bf16
        self.device = torch.device("cpu")
        self._said = False
        self._checksum = ""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """D, once it is prepared."""

    @property
    def checksum(self) -> str:
        """Of the weights, hexadecimal, once it is prepared; empty where there are none."""
        return self._checksum

    @abstractmethod
    def prepare(self, data: DataSet, device: torch.device | str) -> None:
        """Have the weights ready on a device.

        Args:
            data: the images that are compared with; an extractor may be trained on them.
            device: that `__call__` computes on.

        Raises:
            ddpm.errors.UsageError: where there are no weights, they are others, or the data does not serve.
        """

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """float32 [N, D] of images on the device, float32 [N, C, H, W] in [0, 255]."""

    def logits(self, features: Tensor) -> Tensor | None:
        """What the network makes of features: one number a class, float32 [N, K], softmax of which are
        probabilities; None where it has no classes.
        """
        return None

    def about(self) -> dict[str, Any]:
        """What a value that is measured by it has to say, in plain containers."""
        return {
            "extractor": self.name,
            "checksum": self.checksum,
            "resize": self.resize,
            "features": self.num_features,
            "precision": "bf16" if self.bf16 else "float32",
        }

    def check(self, channels: int) -> None:
        """Refuse, with UsageError, images of so many channels where the network was made for colours."""
        if self.channels == 3 and channels not in (1, 3):
            raise UsageError(
                f"extractor={self.name}: looks at images of 1 or 3 channels, and these have {channels}; "
                "extractor=pixels compares any"
            )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of images.

        Args:
            images: uint8 [N, C, H, W], on any device; of 1 or 3 channels where the network was made for
                colour. Grey ones are then repeated to three, which is said once.

        Returns:
            float32 [N, D], on the device of the extractor.

        Raises:
            ValueError: for images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise ValueError(
                f"extractor={self.name}: images must be uint8 [N, C, H, W], not "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            )
        self.check(images.shape[1])
        pixels = images.to(self.device).float()
        if self.channels == 3 and pixels.shape[1] == 1:
            if not self._said:
                log.info("extractor=%s: grey images are repeated to three channels", self.name)
                self._said = True
            pixels = pixels.expand(-1, 3, -1, -1)
        cudnn = torch.backends.cudnn
        with (
            cudnn.flags(cudnn.enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            return self._features(pixels).float()
