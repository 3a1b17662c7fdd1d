"""Denoising diffusion implicit models: the same marginals with less randomness, or none, in fewer steps."""

import math
from collections.abc import Sequence

from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape


class DDIM(Sampler):
    """Song et al. 2021, eq. 12.

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`.
        eta: 0 is deterministic; 1 has the variance of the posterior (eq. 16), which makes it the ancestral
            sampler with the small fixed variance.

    Raises:
        ValueError: where `eta` is outside [0, 1], or the steps make no sense.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        eta: float = 0.0,
        *,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps, rho=rho)
        if not 0 <= eta <= 1:
            raise ValueError(f"sampler.eta={eta} must lie between 0 (deterministic) and 1 (ancestral)")
        self.eta = eta

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        for i in reversed(range(chain.num_timesteps)):
            variance = self.eta**2 * float(chain.posterior_variance[i])
            alpha_bar = float(chain.alphas_cumprod_prev[i])
            # rounding may leave less than 0 for the direction where beta is nearly 1
            direction = math.sqrt(max(1 - alpha_bar - variance, 0.0))
            x_0, eps, _ = predict(x_t, i)
            x_t = math.sqrt(alpha_bar) * x_0 + direction * eps
            if variance > 0:
                x_t = x_t + math.sqrt(variance) * noise(i, x_t)
        return x_t
