"""Denoising diffusion implicit models: the same marginals with less randomness, or none, in fewer steps."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers.sampler import Noise, OnStep, observed
from ddpm.diffusion.samplers.spacing import Shape, Spacing


class DDIM:
    """Song et al. 2021, eq. 12.

    Args:
        num_steps, spacing, timesteps: which steps of the schedule are visited, see `Spacing`; `num_steps`
            None visits every one.
        eta: 0 is deterministic; 1 has the variance of the posterior (eq. 16), which makes it the ancestral
            sampler with the small fixed variance.
        to_x_0: end at x_0. Otherwise at x_t of the last step visited, t = 0 unless a list of timesteps ends
            elsewhere: one use of the network less, and a point on the path at which solvers can be compared.

    Raises:
        ValueError: where `eta` is outside [0, 1], or the steps make no sense.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        eta: float = 0.0,
        *,
        spacing: Shape = "uniform",
        timesteps: Sequence[int] | None = None,
        to_x_0: bool = True,
    ):
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta={eta} must lie between 0 (deterministic) and 1 (ancestral)")
        self.spacing = Spacing(num_steps, spacing, timesteps)
        self.eta = eta
        self.to_x_0 = to_x_0

    def steps(self, num_timesteps: int, start: int | None = None) -> int:
        return len(self.spacing.steps(num_timesteps, start)) - (0 if self.to_x_0 else 1)

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        return self.spacing.chain(schedule, start)

    @torch.inference_mode()
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
        chain = self.chain(schedule, start)
        predict = observed(denoiser, chain, on_step)
        for i in reversed(range(0 if self.to_x_0 else 1, chain.num_timesteps)):
            variance = self.eta**2 * float(chain.posterior_variance[i])
            alpha_bar = float(chain.alphas_cumprod_prev[i])
            # rounding may leave less than 0 for the direction where beta is nearly 1
            direction = math.sqrt(max(1 - alpha_bar - variance, 0.0))
            prediction = predict(x_t, i)
            x_t = math.sqrt(alpha_bar) * prediction.x_0 + direction * prediction.eps
            if variance > 0:
                x_t = x_t + math.sqrt(variance) * noise(int(chain.timesteps[i]), x_t)
        return x_t
