"""Ancestral sampling, the reverse process of the paper."""

import torch
from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule, q_posterior_mean
from ddpm.diffusion.samplers.sampler import Predict, Sampler


class Ancestral(Sampler):
    """Draws x_{t-1} from p(x_{t-1} | x_t) for t = start ... 0 (Ho et al. 2020, algorithm 2).

    On a sub-sequence of the steps it is the same process on the shortened chain, with that chain's betas and
    variances (Nichol and Dhariwal 2021, section 4).

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`.
    """

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        for i in reversed(range(chain.num_timesteps)):
            x_0, _, log_variance = predict(x_t, i)
            t = torch.full((1,), i, device=x_t.device)  # the same for the whole batch
            x_t = q_posterior_mean(chain, x_0, x_t, t)
            if i > 0:  # the last step returns the mean: noise on it could only be seen
                x_t = x_t + (log_variance / 2).exp() * noise(i, x_t)
        return x_t
