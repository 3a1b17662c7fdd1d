"""Heun's method on the probability-flow ODE: second order, two network calls a step."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.flow import euler
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape

MOST_CHURN = math.sqrt(2) - 1
"""The share by which sigma is raised at most: no more noise is added than there is (Karras et al. 2022)."""


class Heun(Sampler):
    """Karras et al. 2022, algorithm 1, or with churn algorithm 2, at the noise levels of a discrete schedule.

    In the coordinate x = x_t / sqrt(alpha-bar), with sigma = sqrt((1 - alpha-bar) / alpha-bar) as time, the
    ODE is dx / d sigma = (x - x_0) / sigma, which is eps. Euler's step goes down with the slope at its upper
    end; Heun's goes again, with the mean of that slope and the one at the lower end. The step to x_0, where
    sigma is 0 and no slope is defined, stays Euler's, which ends at the prediction.

    With churn a step first adds fresh noise, which raises sigma by a share of itself, up to the next step of
    the schedule that has as much (and no further than the step where the call starts), and goes down from
    there. The network is then used at these steps in place of the visited ones.

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`. The network is used twice at each step but the
            first.
        churn: how much noise all steps add together: each raises sigma by the share churn / number of steps,
            at most sqrt(2) - 1; 0 is deterministic. `S_churn` in the paper.
        churn_min, churn_max: sigmas between which noise is added; null is without an end. `S_min`, `S_max`.
        churn_noise: deviation of the noise that is added; slightly above 1 makes up for detail that a network
            removes. `S_noise`.

    Raises:
        ValueError: where the settings make no sense; when called, also on a schedule that ends at zero SNR,
            and with churn on a chain that is a part of another.
    """

    defined_at_zero_snr = False

    def __init__(
        self,
        num_steps: int | None = 20,
        *,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        churn_noise: float = 1.0,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps, rho=rho)
        for name, value in (("churn", churn), ("churn_min", churn_min), ("churn_noise", churn_noise)):
            if not 0 <= value < math.inf:
                raise ValueError(f"sampler.{name}={value}: must be at least 0 and finite")
        if churn_max is not None and not churn_max >= churn_min:
            raise ValueError(
                f"sampler.churn_max={churn_max}: must be at least sampler.churn_min={churn_min}, or null for "
                "no end"
            )
        self.churn = churn
        self.churn_min = churn_min
        self.churn_max = math.inf if churn_max is None else churn_max
        self.churn_noise = churn_noise

    def nfe(self, schedule: NoiseSchedule, start: int | None = None) -> int:
        return 2 * super().nfe(schedule, start) - 1

    def chain(self, schedule: NoiseSchedule, start: int | None = None) -> NoiseSchedule:
        """The steps that are visited, and those that churn raises them to."""
        chain = super().chain(schedule, start)
        if not self.churn:
            return chain
        if schedule.original is not schedule:
            raise ValueError("sampler.churn: raises noise to steps of a whole schedule, and this is a part")
        steps = self.spacing.steps(schedule, start)
        return schedule.respaced(torch.cat([steps, self._raised(schedule, steps)]).unique())

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        alpha_bars = chain.alphas_cumprod.tolist()
        levels = raised = list(range(chain.num_timesteps))
        if self.churn:
            steps = self.spacing.steps(chain.original, int(chain.timesteps[-1]))
            levels = torch.searchsorted(chain.timesteps, steps).tolist()
            raised = torch.searchsorted(chain.timesteps, self._raised(chain.original, steps)).tolist()
        for k in reversed(range(len(levels))):
            here, above = levels[k], raised[k]
            if above > here:
                ratio = math.sqrt(alpha_bars[above] / alpha_bars[here])
                variance = 1 - alpha_bars[above] - ratio**2 * (1 - alpha_bars[here])
                x_t = ratio * x_t + math.sqrt(variance) * self.churn_noise * noise(here, x_t)
            if k == 0:
                break
            below = levels[k - 1]
            ratio, stride = euler(alpha_bars[above], alpha_bars[below])
            slope = predict(x_t, above).eps
            slope_below = predict(ratio * x_t + stride * slope, below).eps
            x_t = ratio * x_t + stride * (slope + slope_below) / 2
        return predict(x_t, raised[0]).x_0

    def _raised(self, schedule: NoiseSchedule, steps: Tensor) -> Tensor:
        """For each step the lowest one of `schedule` whose sigma is as high as churn wants it there; at most
        the last of `steps`.
        """
        sigmas = (1 / schedule.snr).sqrt()
        share = min(self.churn / len(steps), MOST_CHURN)
        here = sigmas[steps]
        churned = (here >= self.churn_min) & (here <= self.churn_max)
        wanted = torch.where(churned, here * (1 + share), here)
        return torch.searchsorted(sigmas, wanted).clamp(max=int(steps[-1]))
