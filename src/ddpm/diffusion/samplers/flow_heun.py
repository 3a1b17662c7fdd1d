"""Heun's method on the ODE of a straight path, in that path's own frame: defined from pure noise on."""

import math
from collections.abc import Sequence

from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape


class FlowHeun(Sampler):
    """Heun's method on rectified flow's ODE (Liu et al. 2023; Heun's step as in Karras et al. 2022, algorithm
    1).

    With x = (1 - u) x_0 + u eps, which is x_t / (signal + noise), and u = noise / (signal + noise), the ODE
    is dx / du = eps - x_0. It is that of `Heun` in another frame: Euler's steps are the same in both, those
    of DDIM, and Heun's differ by the factor (1 - u) / (1 - u') of the correction, from u to u'. Here they
    exist also where u is 1, the end of schedule=flow. The step to x_0 stays Euler's, which ends at the
    prediction.

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`. The network is used twice at each step but the
            first.

    Raises:
        ValueError: where the steps make no sense.
    """

    def __init__(
        self,
        num_steps: int | None = 20,
        *,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps, rho=rho)

    def nfe(self, schedule: NoiseSchedule, start: int | None = None) -> int:
        return 2 * super().nfe(schedule, start) - 1

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        signals = [math.sqrt(alpha_bar) for alpha_bar in chain.alphas_cumprod.tolist()]
        noises = [math.sqrt(1 - alpha_bar) for alpha_bar in chain.alphas_cumprod.tolist()]
        for i in reversed(range(1, chain.num_timesteps)):
            size, size_below = signals[i] + noises[i], signals[i - 1] + noises[i - 1]
            stride = noises[i - 1] / size_below - noises[i] / size
            x = x_t / size
            x_0, eps, _ = predict(x_t, i)
            velocity = eps - x_0
            x_0, eps, _ = predict(size_below * (x + stride * velocity), i - 1)
            x_t = size_below * (x + stride * (velocity + eps - x_0) / 2)
        return predict(x_t, 0).x_0
