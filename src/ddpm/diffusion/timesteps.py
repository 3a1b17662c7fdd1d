"""How the timesteps of a training batch are drawn."""

from typing import Protocol

from torch import Tensor


class Timesteps(Protocol):
    """Turns uniform numbers, one per sample, into timesteps."""

    def draw(self, u: Tensor, num_timesteps: int) -> Tensor:
        """int64 [B] in [0, num_timesteps) from `u` float [B] in [0, 1)."""
        ...


class Uniform:
    """Every step with the same probability (Ho et al. 2020, algorithm 1)."""

    def draw(self, u: Tensor, num_timesteps: int) -> Tensor:
        return (u.double() * num_timesteps).long().clamp(max=num_timesteps - 1)
