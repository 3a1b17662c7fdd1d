"""What a sampler will do: it is run on a single number with a network that predicts nothing, so that none
need say it.
"""

import torch
from torch import Tensor

from ddpm.diffusion.parametrization import Prediction
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers.sampler import Sampler


def random_steps(sampler: Sampler, schedule: NoiseSchedule, start: int | None = None) -> list[int]:
    """The timesteps at which a sampler draws noise, in the order visited; none of a deterministic one.

    Args:
        sampler: of any class.
        schedule: the chain that the network was trained on.
        start: the timestep that it starts at, as in `Sampler`.

    Raises:
        ValueError: as `Sampler.chain`.
    """
    return _rehearsed(sampler, schedule, start)[0]


def used_steps(sampler: Sampler, schedule: NoiseSchedule, start: int | None = None) -> list[int]:
    """The timesteps at which a sampler uses the network, in order; arguments and errors as of
    `random_steps`.
    """
    return _rehearsed(sampler, schedule, start)[1]


def _rehearsed(sampler: Sampler, schedule: NoiseSchedule, start: int | None) -> tuple[list[int], list[int]]:
    drawn: list[int] = []
    used: list[int] = []

    def predict(chain: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        used.extend(chain.timesteps[t].tolist())
        return Prediction(*[torch.zeros_like(x_t)] * 3)

    def noise(t: int, like: Tensor) -> Tensor:
        drawn.append(t)
        return torch.zeros_like(like)

    sampler(predict, schedule, torch.zeros(1, 1, 1, 1), noise=noise, start=start)
    return drawn, used
