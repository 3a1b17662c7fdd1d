"""Ancestral sampling, the reverse process of the paper."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule, q_posterior_mean
from ddpm.diffusion.samplers.sampler import Noise, OnStep, observed
from ddpm.diffusion.samplers.spacing import Shape, Spacing


class Ancestral:
    """Draws x_{t-1} from p(x_{t-1} | x_t) for t = start ... 0 (Ho et al. 2020, algorithm 2).

    On a sub-sequence of the steps it is the same process on the shortened chain, with that chain's betas and
    variances (Nichol and Dhariwal 2021, section 4).

    Args:
        num_steps, spacing, timesteps: which steps of the schedule are visited, see `Spacing`; by default
            every one.

    Raises:
        ValueError: where these make no sense.
    """

    def __init__(
        self,
        num_steps: int | None = None,
        *,
        spacing: Shape = "uniform",
        timesteps: Sequence[int] | None = None,
    ):
        self.spacing = Spacing(num_steps, spacing, timesteps)

    def steps(self, num_timesteps: int, start: int | None = None) -> int:
        return len(self.spacing.steps(num_timesteps, start))

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
        for i, timestep in reversed(list(enumerate(chain.timesteps.tolist()))):
            prediction = predict(x_t, i)
            t = torch.full((1,), i, device=x_t.device)  # the same for the whole batch
            x_t = q_posterior_mean(chain, prediction.x_0, x_t, t)
            if i > 0:  # the last step returns the mean: noise on it could only be seen
                x_t = x_t + (prediction.log_variance / 2).exp() * noise(timestep, x_t)
        return x_t
