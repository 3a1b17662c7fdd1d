"""Diffusion exponential integrator: eps extrapolated through its last values, one network call a step."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.process import Noise, NoiseSchedule
from ddpm.diffusion.samplers.flow import euler
from ddpm.diffusion.samplers.sampler import Predict, Sampler
from ddpm.diffusion.samplers.spacing import Shape

_POINTS, _SHARES = np.polynomial.legendre.leggauss(16)  # of an integral from -1 to 1


class DEIS(Sampler):
    """Adams-Bashforth on the probability-flow ODE (Zhang and Chen 2023, arXiv 2204.13902, rho-AB with
    polynomials in log rho).

    In the coordinate x = x_t / sqrt(alpha-bar), with sigma = sqrt((1 - alpha-bar) / alpha-bar), which the
    paper calls rho, the ODE is dx = eps dsigma. eps is taken for a polynomial in log sigma through its last
    `order` values, fewer in the first steps, and integrated exactly. The step to x_0, where log sigma ends,
    is of first order and returns the prediction. With order 1 it is DDIM without noise.

    Args:
        num_steps, spacing, timesteps, rho: as in `Sampler`.
        order: of accuracy, 1 to 3.

    Raises:
        ValueError: where `order` is another number or the steps make no sense; when called, also on a
            schedule that ends at zero SNR.
    """

    defined_at_zero_snr = False

    def __init__(
        self,
        num_steps: int | None = 10,
        *,
        order: int = 3,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        super().__init__(num_steps, spacing=spacing, timesteps=timesteps, rho=rho)
        if order not in (1, 2, 3):
            raise ValueError(f"sampler.order={order}: must be 1, 2 or 3; 3 is usual")
        self.order = order

    def reverse(self, predict: Predict, chain: NoiseSchedule, x_t: Tensor, noise: Noise) -> Tensor:
        alpha_bars = chain.alphas_cumprod.tolist()
        log_sigmas = (-chain.snr.log() / 2).tolist()
        known: list[Tensor] = []  # eps at this step and at those above, nearest first
        for i in reversed(range(1, chain.num_timesteps)):
            known = [predict(x_t, i).eps, *known[: self.order - 1]]
            weights = adams_bashforth(log_sigmas[i : i + len(known)], log_sigmas[i - 1])
            ratio, stride = euler(alpha_bars[i], alpha_bars[i - 1])
            slope = sum((weight * eps for weight, eps in zip(weights, known, strict=True)), torch.zeros(()))
            x_t = ratio * x_t + stride * slope
        return predict(x_t, 0).x_0


def adams_bashforth(above: Sequence[float], below: float) -> list[float]:
    """Weights of eps at the log sigmas `above`, for a step from the first of them to `below`: their sum is
    the mean over sigma, along the step, of the polynomial in log sigma through these values.

    The integral is that of Gauss and Legendre, exact to rounding for steps of up to 20 in log sigma.
    """
    begin = above[0]
    logs = begin + (below - begin) * (_POINTS + 1) / 2
    # dsigma = sigma dlog sigma, relative to the whole
    shares = _SHARES * np.exp(logs - begin) * (below - begin) / 2 / np.expm1(below - begin)
    weights = []
    for j, node in enumerate(above):
        others = [other for k, other in enumerate(above) if k != j]
        basis = np.prod([(logs - other) / (node - other) for other in others], axis=0)
        weights.append(float((shares * basis).sum()))
    return weights
