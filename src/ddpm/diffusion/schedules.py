"""Noise schedules: how much noise each step of the forward process adds."""

import math

import torch

from ddpm.diffusion.process import NoiseSchedule


def linear(num_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> NoiseSchedule:
    """Betas that rise linearly (Ho et al. 2020, section 4).

    `beta_start` and `beta_end` are stated for 1000 steps and scaled by 1000 / T, which keeps the sum of the
    betas, so that a chain of any length ends near pure noise.

    Raises:
        ValueError: where the scaled betas reach 1, as they do at T = 20 with the default `beta_end`.
    """
    scale = 1000 / num_timesteps
    if beta_end * scale >= 1:
        fewest = math.floor(1000 * beta_end) + 1
        raise ValueError(
            f"schedule.num_timesteps={num_timesteps}: the last beta would be {beta_end * scale:.3g}, and it "
            f"must stay "
            f"below 1; use {fewest} steps or more, or a smaller beta_end"
        )
    return NoiseSchedule(
        torch.linspace(beta_start * scale, beta_end * scale, num_timesteps, dtype=torch.float64)
    )


def cosine(num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> NoiseSchedule:
    """alpha-bar falls like a squared cosine (Nichol and Dhariwal 2021, eq. 17).

    Args:
        num_timesteps: T.
        offset: keeps the first betas from vanishing; `s` in the paper.
        max_beta: betas are clipped here, which happens in the last steps.
    """
    u = torch.linspace(0, 1, num_timesteps + 1, dtype=torch.float64)
    alphas_cumprod = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    betas = 1 - alphas_cumprod[1:] / alphas_cumprod[:-1]
    return NoiseSchedule(betas.clamp(max=max_beta))
