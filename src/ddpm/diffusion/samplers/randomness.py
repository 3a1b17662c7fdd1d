"""Where a reverse process is random: which of its steps draw noise."""

import torch
from torch import Tensor

from ddpm.diffusion.parametrization import Prediction
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers.sampler import Sampler


def random_steps(sampler: Sampler, schedule: NoiseSchedule, start: int | None = None) -> list[int]:
    """The timesteps at which a sampler draws noise, in the order visited; none of a deterministic one.

    It is run on a single number with a network that predicts nothing, so that a sampler need not say it.

    Args:
        sampler: of any class.
        schedule: the chain that the network was trained on.
        start: the timestep that it starts at, as in `Sampler`.

    Raises:
        ValueError: as `Sampler.chain`.
    """
    found: list[int] = []

    def predict(chain: NoiseSchedule, x_t: Tensor, t: Tensor) -> Prediction:
        return Prediction(*[torch.zeros_like(x_t)] * 3)

    def noise(t: int, like: Tensor) -> Tensor:
        found.append(t)
        return torch.zeros_like(like)

    sampler(predict, schedule, torch.zeros(1, 1, 1, 1), noise=noise, start=start)
    return found
