"""What images are drawn with: a network beside the process that it was trained for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ddpm.diffusion import Denoiser, Known, NoiseSchedule
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import OnStep, Sampler
from ddpm.diffusion.start import Start

Weights = Literal["ema", "raw"]
"""The averaged weights, or the network's own."""


class Model(Protocol):
    """A trained network. `ddpm.training.module.DDPM` is one."""

    network: nn.Module
    schedule: NoiseSchedule
    sampler: Sampler
    guidance: Guidance
    image_shape: tuple[int, int, int]
    classes: list[str] | None

    @property
    def device(self) -> torch.device: ...

    @property
    def num_classes(self) -> int | None:
        """That the network is conditioned on; None for an unconditional one."""
        ...

    @property
    def activation_bytes(self) -> float:
        """See `ddpm.runtime.arithmetic.activation_bytes`."""
        ...

    def denoiser(
        self, labels: Tensor | None = None, *, guidance: Guidance | None = None, known: Known | None = None
    ) -> Denoiser:
        """The network as samplers see it; what is None is as the model has it, or absent."""
        ...

    def evaluating(self, weights: Weights = "ema") -> AbstractContextManager[None]:
        """The network without dropout, with the averaged weights or its own."""
        ...

    def labels_of(self, indices: range, labels: Sequence[int] | None = None) -> list[int] | None:
        """The class of each image that is drawn; None where the network knows none."""
        ...

    def sample(
        self,
        indices: range,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        weights: Weights = "ema",
        labels: Sequence[int] | None = None,
        guidance: Guidance | None = None,
        start: Start | None = None,
        known: Known | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """Draw images at once: float32 [len(indices), C, H, W] in [-1, 1], on the model's device."""
        ...
