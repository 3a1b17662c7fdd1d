"""Heun's method on the probability-flow ODE: second order, two network calls a step."""

from collections.abc import Sequence

from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.flow import euler
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1, at the noise levels of a discrete schedule.

    In the coordinate x = x_t / sqrt(alpha-bar), with sigma = sqrt((1 - alpha-bar) / alpha-bar) as time, the
    ODE is dx / d sigma = (x - x_0) / sigma, which is eps. Euler's step goes down with the slope at its upper
    end; Heun's goes again, with the mean of that slope and the one at the lower end. The step to x_0, where
    sigma is 0 and no slope is defined, stays Euler's, which ends at the prediction.

    Args:
        num_steps, spacing, timesteps: as in `Sampler`. The network is used twice at each step but the first.

    Raises:
        ValueError: where the steps make no sense; when called, also on a schedule that ends at zero SNR.
    """

    defined_at_zero_snr = False

    def __init__(
        self,
        num_steps: int | None = 20,
        *,
        spacing: Shape = "uniform",
        timesteps: Sequence[int] | None = None,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps)

    def nfe(self, num_timesteps: int, start: int | None = None) -> int:
        return 2 * super().nfe(num_timesteps, start) - 1

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        alpha_bars = chain.alphas_cumprod.tolist()
        for i in reversed(range(1, chain.num_timesteps)):
            ratio, stride = euler(alpha_bars[i], alpha_bars[i - 1])
            slope = predict(x_t, i).eps
            slope_below = predict(ratio * x_t + stride * slope, i - 1).eps
            x_t = ratio * x_t + stride * (slope + slope_below) / 2
        return predict(x_t, 0).x_0
