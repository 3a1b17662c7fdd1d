"""What images are drawn with: a network beside the process that it was trained for."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ddpm.diffusion import Denoiser, Known, NoiseSchedule
from ddpm.diffusion.condition import Condition
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import Sampler

Weights = Literal["ema", "raw"]
"""The averaged weights, or the network's own. Where no average is kept, they are the same."""


class Conditions(Protocol):
    """What images are drawn under beside their class, from their indices. See `ddpm.sampling.conditions`."""

    def __call__(self, indices: Sequence[int]) -> Condition: ...

    def truth(self, indices: Sequence[int]) -> Tensor | None:
        """The images that these conditions belong to, float32 [len(indices), C, H, W]; None where nobody
        knows.
        """
        ...

    def labels(self, indices: Sequence[int]) -> list[int] | None:
        """Their classes; None where nobody knows, or there are none."""
        ...


class Model(Protocol):
    """A trained network. `ddpm.training.module.DDPM` is one."""

    network: nn.Module
    schedule: NoiseSchedule
    sampler: Sampler
    guidance: Guidance
    image_shape: tuple[int, int, int]
    classes: list[str] | None
    condition_channels: int
    vector_size: int
    condition_drop: float
    conditions: Conditions | None
    """Those that images are drawn under where none are given."""
    sigma_rel: float | None
    """Of the average that `ema` weights are, where they are one that was made after training."""

    @property
    def device(self) -> torch.device: ...

    @property
    def num_classes(self) -> int | None:
        """That the network is conditioned on; None for an unconditional one."""
        ...

    @property
    def draws_latents(self) -> bool:
        """Whether it draws latents, which have no bounds, and no images in [-1, 1]."""
        ...

    @property
    def activation_bytes(self) -> float:
        """See `ddpm.runtime.arithmetic.activation_bytes`."""
        ...

    @property
    def is_conditioned(self) -> bool:
        """Whether the network is conditioned on anything beside the class."""
        ...

    def no_condition(self, n: int) -> Condition | None:
        """For n images, what the network sees where the condition is withheld; None where it takes none."""
        ...

    def denoiser(
        self,
        labels: Tensor | None = None,
        *,
        condition: Condition | None = None,
        guidance: Guidance | None = None,
        known: Known | None = None,
    ) -> Denoiser:
        """The network as samplers see it; what is None is as the model has it, or absent."""
        ...

    def evaluating(self, weights: Weights | None = None) -> AbstractContextManager[None]:
        """The network without dropout, with the averaged weights or its own; by default those of the block
        around this one, or the averaged ones.
        """
        ...
