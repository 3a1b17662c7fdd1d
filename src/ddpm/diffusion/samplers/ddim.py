"""Denoising diffusion implicit models: the same marginals with less randomness, or none, in fewer steps."""

import math

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule, evenly_spaced
from ddpm.diffusion.samplers.sampler import Noise, OnStep


class DDIM:
    """Song et al. 2021, eq. 12, on an evenly spaced chain.

    Args:
        num_steps: steps of the chain; None visits every step of the schedule.
        eta: 0 is deterministic; 1 has the variance of the posterior (eq. 16), which makes it the ancestral
            sampler with the small fixed variance.

    Raises:
        ValueError: where `eta` is outside [0, 1].
    """

    def __init__(self, num_steps: int | None = 50, eta: float = 0.0):
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta={eta} must lie between 0 (deterministic) and 1 (ancestral)")
        self.num_steps = num_steps
        self.eta = eta

    def steps(self, num_timesteps: int) -> int:
        return self.num_steps or num_timesteps

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
        start = schedule.num_timesteps - 1 if start is None else start
        chain = schedule.respaced(evenly_spaced(self.num_steps or start + 1, start))
        for i, timestep in reversed(list(enumerate(chain.timesteps.tolist()))):
            t = torch.full((len(x_t),), i, device=x_t.device)
            prediction = denoiser(chain, x_t, t)
            if on_step is not None:
                on_step(timestep, x_t, prediction.x_0)
            alpha_bar = float(chain.alphas_cumprod_prev[i])
            variance = self.eta**2 * float(chain.posterior_variance[i])
            x_t = math.sqrt(alpha_bar) * prediction.x_0 + math.sqrt(1 - alpha_bar - variance) * prediction.eps
            if variance > 0:
                x_t = x_t + math.sqrt(variance) * noise(timestep, x_t)
        return x_t
