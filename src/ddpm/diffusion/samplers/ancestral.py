"""Ancestral sampling, the reverse process of the paper."""

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule, evenly_spaced, q_posterior_mean
from ddpm.diffusion.samplers.sampler import Noise, OnStep


class Ancestral:
    """Draws x_{t-1} from p(x_{t-1} | x_t) for t = start ... 0 (Ho et al. 2020, algorithm 2).

    Args:
        num_steps: steps of a shortened, evenly spaced chain; by default every step of the schedule is
            visited.
    """

    def __init__(self, num_steps: int | None = None):
        self.num_steps = num_steps

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
            x_t = q_posterior_mean(chain, prediction.x_0, x_t, t)
            if i > 0:  # the last step returns the mean: noise on it could only be seen
                x_t = x_t + (prediction.log_variance / 2).exp() * noise(timestep, x_t)
        return x_t
