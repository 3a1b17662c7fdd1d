"""The call that every sampler answers."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser, Prediction
from ddpm.diffusion.process import NoiseSchedule

Noise = Callable[[int, Tensor], Tensor]
"""(timestep, like) -> unit Gaussian noise of the shape of `like` [B, C, H, W], each image from its own
stream.
"""

OnStep = Callable[[int, Tensor, Tensor], None]
"""(timestep, x_t, predicted x_0), called once for each use of the network."""

Predict = Callable[[Tensor, int], Prediction]
"""(x_t [B, C, H, W], i) -> what the network says about x_t at step i of the chain in use."""


class Sampler(Protocol):
    """A reverse process. Settings are in the constructor; a call changes nothing but its own x_t."""

    def steps(self, num_timesteps: int, start: int | None = None) -> int:
        """How often one call from `start` uses the network on a chain of `num_timesteps` steps."""
        ...

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        """The steps of `schedule` that a call visits, as a chain of their own.

        Raises:
            ValueError: where `start` is outside the schedule, or the sampler cannot run on it.
        """
        ...

    def __call__(
        self,
        denoiser: Denoiser,
        schedule: NoiseSchedule,
        x_t: Tensor,
        *,
        noise: Noise,
        start: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """From x_t to x_0.

        Args:
            denoiser: predicts x_0 and the variance of the reverse step.
            schedule: the chain that the network was trained on.
            x_t: [B, C, H, W]; unit Gaussian noise to sample from scratch.
            noise: where the process is random.
            start: the timestep of x_t; by default T - 1, or the end of the sampler's own list of timesteps.
            on_step: sees every step, for progress, paths and animations.

        Returns:
            x_0 [B, C, H, W]; within [-1, 1] where the denoiser clips.

        Raises:
            ValueError: as `chain`.
        """
        ...


def observed(denoiser: Denoiser, chain: NoiseSchedule, on_step: OnStep | None) -> Predict:
    """Ask about a whole batch at one step of `chain`, and let `on_step` see each answer.

    `on_step` is told the timestep of the schedule that the chain was taken from.
    """
    timesteps = chain.timesteps.tolist()

    def predict(x_t: Tensor, i: int) -> Prediction:
        prediction = denoiser(chain, x_t, torch.full((len(x_t),), i, device=x_t.device))
        if on_step is not None:
            on_step(timesteps[i], x_t, prediction.x_0)
        return prediction

    return predict
