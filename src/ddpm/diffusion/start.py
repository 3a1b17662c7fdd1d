"""What a reverse process starts from: noise, an image, or a point between two images."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ddpm.diffusion.process import NoiseSchedule, q_sample

Draw = Callable[[Sequence[int]], Tensor]
"""Indices of images -> unit Gaussian noise [N, C, H, W], each image its own."""


class Start(Protocol):
    """Where a reverse process starts."""

    @property
    def t(self) -> int | None:
        """The step of the schedule that it starts at; None is its end, T - 1."""
        ...

    def x_t(self, schedule: NoiseSchedule, indices: Sequence[int], draw: Draw) -> Tensor:
        """x_t [N, C, H, W] of the images with these indices."""
        ...


class FromNoise:
    """Every image from noise of its own (Ho et al. 2020, algorithm 2)."""

    t = None

    def x_t(self, schedule: NoiseSchedule, indices: Sequence[int], draw: Draw) -> Tensor:
        return draw(indices)


class FromImage:
    """Every image from the same one, with noise of its own: variations, the freer the higher t is.

    Args:
        x_0: [C, H, W] in [-1, 1].
        t: the step that it is noised to; 0 changes almost nothing, and T - 1 leaves almost nothing of it.
    """

    def __init__(self, x_0: Tensor, t: int):
        self.x_0 = x_0
        self.t = t

    def x_t(self, schedule: NoiseSchedule, indices: Sequence[int], draw: Draw) -> Tensor:
        eps = draw(indices)
        return q_sample(schedule, self.x_0.to(eps).expand_as(eps), _all(self.t, eps), eps)


class Between:
    """Image i of n from the point i / (n - 1) of the way between two noised images (Ho et al. 2020, section
    4.4 and figure 8).

    Each of the two has its noise, the same for all points, as in the paper, which says nothing of the noise
    on their way: `Drawing` has `same_noise` for it. A point on the line between them would have less noise
    than either; it is brought back to unit variance, so that the network sees what it was trained on.

    Args:
        first: x_0 [C, H, W] in [-1, 1].
        last: likewise.
        t: the step that both are noised to.
        n: points, both ends among them; at least 2.

    Raises:
        ValueError: where there are fewer.
    """

    def __init__(self, first: Tensor, last: Tensor, t: int, n: int):
        if n < 2:
            raise ValueError(f"n={n}: from one image to another there are at least 2")
        self.first = first
        self.last = last
        self.t = t
        self.n = n

    def x_t(self, schedule: NoiseSchedule, indices: Sequence[int], draw: Draw) -> Tensor:
        if max(indices, default=0) >= self.n:
            raise ValueError(f"n={self.n}: there is no image {max(indices)} between the two images")
        eps_first, eps_last = draw(range(2))
        points = [i / (self.n - 1) for i in indices]
        share = torch.tensor(points, device=eps_first.device).view(-1, 1, 1, 1)
        x_0 = (1 - share) * self.first.to(eps_first) + share * self.last.to(eps_first)
        eps = (1 - share) * eps_first + share * eps_last
        return q_sample(schedule, x_0, _all(self.t, x_0), eps / ((1 - share) ** 2 + share**2).sqrt())


def _all(t: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), t, device=like.device)
