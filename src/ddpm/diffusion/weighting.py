"""The loss's weight as a function of t."""

from typing import Protocol

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule


class Weighting(Protocol):
    """Factor on the mean squared error of each sample."""

    def weight(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        """float [B] for `t` int64 [B]."""
        ...


class Simple:
    """1 everywhere: the paper's L_simple (Ho et al. 2020, eq. 14)."""

    def weight(self, schedule: NoiseSchedule, t: Tensor) -> Tensor:
        return torch.ones(t.shape, device=t.device)
