"""The call that every sampler answers."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule

Noise = Callable[[int, Tensor], Tensor]
"""(timestep, like) -> unit Gaussian noise of the shape of `like` [B, C, H, W], each image from its own
stream.
"""

OnStep = Callable[[int, Tensor, Tensor], None]
"""(timestep, x_t, predicted x_0), called once for each use of the network."""


class Sampler(Protocol):
    """A reverse process. Settings are in the constructor; a call changes nothing but its own x_t."""

    def steps(self, num_timesteps: int) -> int:
        """How often one call uses the network on a chain of `num_timesteps` steps."""
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
            start: the timestep of x_t, T - 1 by default.
            on_step: sees every step, for progress, paths and animations.

        Returns:
            x_0 [B, C, H, W]; within [-1, 1] where the denoiser clips.

        Raises:
            ValueError: where `start` is outside the schedule.
        """
        ...
