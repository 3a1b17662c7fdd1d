"""DDIM run backwards: from an image to the noise that DDIM turns into it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoise
from ddpm.diffusion.process import NoiseSchedule
from ddpm.diffusion.samplers.flow import euler
from ddpm.diffusion.samplers.sampler import OnStep, observed
from ddpm.diffusion.samplers.spacing import Shape, Spacing


class DDIMInversion:
    """Encodes x_0 as x_T by the ODE of DDIM in the other direction (Song et al. 2021, eq. 13, section 4.3).

    In the coordinate x = x_t / sqrt(alpha-bar), with sigma = sqrt((1 - alpha-bar) / alpha-bar) as time, DDIM
    goes down from x by a stretch of sigma along eps(x). Its inverse goes up along the eps of where it will
    arrive: an implicit equation, of which one fixed-point iteration is done, from the point that the eps of
    the step before leads to. That is one network call a step, and `DDIM` with the same settings and eta 0
    decodes the result to nearly x_0, with an error that falls with the square of the number of steps.

    Where alpha-bar ends near 0, as the cosine schedule's does at 2e-9, the last steps magnify every error of
    eps a hundred times. A `start` where it is 4e-5, as at the end of the linear schedule, loses little by it.

    No `Sampler`, since it begins with an image.

    Args:
        num_steps, spacing, timesteps, rho: which steps of the schedule are visited, see `Spacing`;
            `num_steps` None visits every one.

    Raises:
        ValueError: where these make no sense.
    """

    def __init__(
        self,
        num_steps: int | None = 50,
        *,
        spacing: Shape | str | Sequence[int] = "uniform",
        timesteps: Sequence[int] | None = None,
        rho: float = 7.0,
    ):
        self.spacing = Spacing(num_steps, spacing, timesteps, rho)

    def nfe(self, schedule: NoiseSchedule, start: int | None = None) -> int:
        """Uses of the network by one call that goes up to `start` on this schedule."""
        return len(self.spacing.steps(schedule, start))

    @torch.inference_mode()
    def __call__(
        self,
        denoiser: Denoise,
        schedule: NoiseSchedule,
        x_0: Tensor,
        *,
        start: int | None = None,
        on_step: OnStep | None = None,
    ) -> Tensor:
        """From x_0 to the x_t at `start`.

        Args:
            denoiser: predicts eps.
            schedule: the chain that the network was trained on.
            x_0: images [B, C, H, W] in [-1, 1].
            start: the timestep to encode to, from where decoding starts; as in `Sampler`.
            on_step: sees (timestep, x_t, predicted x_0) for each use of the network, at the x_t that it is
                used on.

        Returns:
            x_t [B, C, H, W] at `start`.

        Raises:
            ValueError: where `start` is outside the schedule.
        """
        chain = self.spacing.chain(schedule, start)
        predict = observed(denoiser, chain, on_step)
        x_t, eps, alpha_bar_s = x_0, torch.zeros_like(x_0), 1.0
        for i, alpha_bar_t in enumerate(chain.alphas_cumprod.tolist()):
            ratio, stride = euler(alpha_bar_s, alpha_bar_t)  # from s, where x_t is, to t, the step above
            eps = predict(ratio * x_t + stride * eps, i).eps
            x_t = ratio * x_t + stride * eps
            alpha_bar_s = alpha_bar_t
        return x_t
