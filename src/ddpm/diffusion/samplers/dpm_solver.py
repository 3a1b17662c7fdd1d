"""DPM-Solver++ of second order, multistep: each network call serves two steps."""

import math
from collections.abc import Sequence

from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape


class DPMSolver(Sampler):
    """DPM-Solver++(2M), or SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    With x_t = alpha x_0 + sigma eps and lambda = log(alpha / sigma), half the log-SNR, the diffusion ODE and
    SDE are integrated exactly in lambda but for the network's x_0, which is extrapolated on a line through
    its last two values. The first step has one value only, and the step to x_0 is infinite in lambda: both
    are of first order, and the latter returns the prediction.

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`.
        stochastic: solve the SDE in place of the ODE.

    Raises:
        ValueError: where the steps make no sense; when called, also on a schedule that ends at zero SNR.
    """

    defined_at_zero_snr = False

    def __init__(
        self,
        num_steps: int | None = 20,
        *,
        stochastic: bool = False,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps, rho=rho)
        self.stochastic = stochastic

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        lambdas = [math.inf, *(chain.snr.log() / 2).tolist()]  # of x_0, which has no noise, and of the chain
        h_before, x_0_before = math.nan, None
        for i in reversed(range(chain.num_timesteps)):
            # from s, where x_t is, to t, the step below
            alpha_bar_s, alpha_bar_t = float(chain.alphas_cumprod[i]), float(chain.alphas_cumprod_prev[i])
            alpha_t = math.sqrt(alpha_bar_t)
            sigma_s, sigma_t = math.sqrt(1 - alpha_bar_s), math.sqrt(1 - alpha_bar_t)
            h = lambdas[i] - lambdas[i + 1]
            x_0 = predict(x_t, i).x_0
            if x_0_before is None or math.isinf(h):
                extrapolated = x_0
            else:
                r = h_before / h
                extrapolated = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * x_0_before
            decay = math.exp(-h)
            if self.stochastic:
                x_t = sigma_t / sigma_s * decay * x_t + alpha_t * (1 - decay**2) * extrapolated
                if sigma_t > 0:
                    x_t = x_t + sigma_t * math.sqrt(1 - decay**2) * noise(i, x_t)
            else:
                x_t = sigma_t / sigma_s * x_t + alpha_t * (1 - decay) * extrapolated
            h_before, x_0_before = h, x_0
        return x_t
