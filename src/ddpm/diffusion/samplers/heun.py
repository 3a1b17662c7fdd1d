"""Heun's method on the probability-flow ODE: second order, two network calls a step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers.flow import euler
from ddpm.diffusion.samplers.sampler import Noise, OnStep, observed
from ddpm.diffusion.samplers.spacing import Shape, Spacing, refuse_zero_snr


class Heun:
    """Karras et al. 2022, algorithm 1, at the noise levels of a discrete schedule.

    In the coordinate x = x_t / sqrt(alpha-bar), with sigma = sqrt((1 - alpha-bar) / alpha-bar) as time, the
    ODE is dx / d sigma = (x - x_0) / sigma, which is eps. Euler's step goes down with the slope at its upper
    end; Heun's goes again, with the mean of that slope and the one at the lower end. The step to x_0, where
    sigma is 0 and no slope is defined, stays Euler's, which ends at the prediction.

    Args:
        num_steps, spacing, timesteps: which steps of the schedule are visited, see `Spacing`; `num_steps`
            None visits every one. The network is asked twice at each but the first.
        to_x_0: end at x_0. Otherwise at x_t of the last step visited, t = 0 unless a list of timesteps ends
            elsewhere: one use of the network less, and there the error falls with the square of the steps.

    Raises:
        ValueError: where the steps make no sense; when called, also on a schedule that ends at zero SNR.
    """

    def __init__(
        self,
        num_steps: int | None = 20,
        *,
        spacing: Shape = "uniform",
        timesteps: Sequence[int] | None = None,
        to_x_0: bool = True,
    ):
        self.spacing = Spacing(num_steps, spacing, timesteps)
        self.to_x_0 = to_x_0

    def steps(self, num_timesteps: int, start: int | None = None) -> int:
        return 2 * (len(self.spacing.steps(num_timesteps, start)) - 1) + (1 if self.to_x_0 else 0)

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        chain = self.spacing.chain(schedule, start)
        refuse_zero_snr(chain, "heun")
        return chain

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
        alpha_bars = chain.alphas_cumprod.tolist()
        for i in reversed(range(1, chain.num_timesteps)):
            ratio, stride = euler(alpha_bars[i], alpha_bars[i - 1])
            slope = predict(x_t, i).eps
            slope_below = predict(ratio * x_t + stride * slope, i - 1).eps
            x_t = ratio * x_t + stride * (slope + slope_below) / 2
        return predict(x_t, 0).x_0 if self.to_x_0 else x_t
