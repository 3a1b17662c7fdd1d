"""A reverse process on Gaussian data is an affine map, which is found without drawing anything.

Fed with zero, the unit vectors as x_T, and unit vectors as each noise it asks for, a sampler shows the map
from these to every x_t on its way.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ddpm.diffusion import Denoise, NoiseSchedule
from ddpm.diffusion.samplers import Sampler, Trajectory
from ddpm.doctor.case import distance
from ddpm.doctor.gaussian import CLEAN, Gaussian
from ddpm.doctor.reference import SHAPE, as_images


class Moved(NamedTuple):
    """Where a reverse process is, as an affine function of x_T and of all noise: offset [D], response to x_T
    [D, D], and to the noises it has asked for so far [D, D * number].
    """

    offset: Tensor
    start: Tensor
    noise: Tensor

    def law(self, x_t: Gaussian) -> Gaussian:
        """Its moments where it starts with those."""
        covariance = self.start @ x_t.covariance @ self.start.T + self.noise @ self.noise.T
        return Gaussian(self.offset + self.start @ x_t.mean, covariance)


def visited(sampler: Sampler, schedule: NoiseSchedule, start: int | None = None) -> tuple[int, ...]:
    """The steps that a call from `start` visits, rising."""
    return tuple(sampler.chain(schedule, start).timesteps.tolist())


def moved(
    sampler: Sampler,
    denoiser: Denoise,
    schedule: NoiseSchedule,
    shape: Sequence[int] = SHAPE,
    start: int | None = None,
) -> dict[int, Moved]:
    """The map from x_T and all noise to x_t at each step that is visited, and to x_0 (at CLEAN)."""
    size = math.prod(shape)
    most = 2 * len(visited(sampler, schedule, start))
    x_t = torch.zeros(1 + size + size * most, size, dtype=torch.float64)
    x_t[1 : 1 + size] = torch.eye(size, dtype=torch.float64)
    asked = 0

    def noise(t: int, like: Tensor) -> Tensor:
        nonlocal asked
        rows = torch.zeros_like(x_t)
        rows[1 + size * (1 + asked) : 1 + size * (2 + asked)] = torch.eye(size, dtype=torch.float64)
        asked += 1
        return as_images(rows, shape)

    path = Trajectory()
    result = sampler(denoiser, schedule, as_images(x_t, shape), noise=noise, start=start, on_step=path)

    def parts(images: Tensor) -> Moved:
        rows = images.flatten(1)
        responses = (rows[1:] - rows[0]).T
        return Moved(rows[0], responses[:, :size], responses[:, size : size * (1 + asked)])

    return {**{t: parts(at) for t, at in path.x_t.items()}, CLEAN: parts(result)}


def law_distance(found: Gaussian, expected: Gaussian) -> float:
    return max(distance(found.mean, expected.mean), distance(found.covariance, expected.covariance))


def map_distance(found: dict[int, Moved], expected: dict[int, Moved]) -> float:
    if found.keys() != expected.keys():
        return math.inf
    return max(
        distance(ours, theirs) if ours.shape == theirs.shape else math.inf
        for t in found
        for ours, theirs in zip(found[t], expected[t], strict=True)
    )
