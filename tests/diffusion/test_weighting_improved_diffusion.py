"""Losses and gradients that hold the bound, against the formulas of improved-diffusion written out.

Nichol and Dhariwal's code (`gaussian_diffusion.py`: `_vb_terms_bpd`, `training_losses`), in double precision,
for t > 0: at t = 0 it takes the Gaussian's distribution function from a tanh, and so is right to a few digits
only. It subtracts means and log-variances, and keeps fewer digits than it is written in.
"""

import math

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, Parametrization, q_sample
from ddpm.diffusion.objectives import X0, Epsilon, PosteriorMean
from ddpm.diffusion.schedules import cosine, linear
from ddpm.diffusion.variances import FixedLarge, FixedSmall, Learned, LearnedRange, Variance
from ddpm.diffusion.weighting import Hybrid, Noised, VariationalBound, Weighting

SCHEDULES = {"cosine": cosine(4000), "linear": linear(1000)}
OBJECTIVES = {"epsilon": Epsilon(), "x_0": X0(), "mean": PosteriorMean()}
VARIANCES = {"large": FixedLarge(), "small": FixedSmall(), "learned": Learned(), "range": LearnedRange()}
STEPS = torch.tensor([1, 2, 3, 10, 100, 500, 998, 999])


class ImprovedDiffusion:
    """The loss of their `GaussianDiffusion`, from its betas alone."""

    def __init__(self, betas: Tensor):
        self.num_timesteps = len(betas)
        alphas_cumprod = torch.cumprod(1 - betas, 0)
        previous = torch.cat([torch.ones(1, dtype=torch.float64), alphas_cumprod[:-1]])
        posterior_variance = betas * (1 - previous) / (1 - alphas_cumprod)
        first = posterior_variance[1:2]
        self.betas = betas
        self.alphas_cumprod = alphas_cumprod
        self.posterior_log_variance_clipped = torch.cat(
            [posterior_variance[1:2], posterior_variance[1:]]
        ).log()
        self.posterior_mean_coef1 = betas * previous.sqrt() / (1 - alphas_cumprod)
        self.posterior_mean_coef2 = (1 - previous) * (1 - betas).sqrt() / (1 - alphas_cumprod)
        self.fixed_large = torch.cat([first, betas[1:]]).log()

    def losses(
        self, objective: str, variance: str, noised: Noised, output: Tensor, rescaled_kl: bool
    ) -> Tensor:
        """LossType.RESCALED_KL, or else RESCALED_MSE with the bound's term where a variance is learned."""
        x_start, t, noise, x_t = noised

        def at(table: Tensor) -> Tensor:
            return table[t].view(-1, 1, 1, 1)

        channels = x_start.shape[1]
        values = output[:, channels:]
        output = output[:, :channels]
        true_mean = at(self.posterior_mean_coef1) * x_start + at(self.posterior_mean_coef2) * x_t
        target = {"epsilon": noise, "x_0": x_start, "mean": true_mean}[objective]
        mse = ((target - output) ** 2).mean((1, 2, 3))
        if not rescaled_kl:
            output = output.detach()

        alpha_bar = at(self.alphas_cumprod)
        if objective == "mean":
            mean = output
        else:
            x_0 = output
            if objective == "epsilon":
                x_0 = (1 / alpha_bar).sqrt() * x_t - (1 / alpha_bar - 1).sqrt() * output
            mean = at(self.posterior_mean_coef1) * x_0 + at(self.posterior_mean_coef2) * x_t
        smallest = at(self.posterior_log_variance_clipped)
        share = (values + 1) / 2
        log_variance = {
            "large": lambda: at(self.fixed_large),
            "small": lambda: smallest,
            "learned": lambda: values,
            "range": lambda: share * at(self.betas).log() + (1 - share) * smallest,
        }[variance]()
        kl = 0.5 * (
            -1.0
            + log_variance
            - smallest
            + (smallest - log_variance).exp()
            + (true_mean - mean) ** 2 * (-log_variance).exp()
        )
        bound = self.num_timesteps * kl.mean((1, 2, 3)) / math.log(2)
        return bound if rescaled_kl else mse + bound / 1000


def given(schedule: NoiseSchedule, variance: Variance) -> tuple[Noised, Tensor]:
    """8-bit images, and an output that is noise around what an untrained network gives."""
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.randint(0, 256, (len(STEPS), 3, 4, 4), generator=generator).double() / 127.5 - 1
    t = torch.where(STEPS < 998, STEPS, STEPS - 1000 + schedule.num_timesteps)
    eps = torch.randn(x_0.shape, generator=generator, dtype=torch.float64)
    output = torch.randn(len(t), 3 * (1 + variance.outputs), 4, 4, generator=generator, dtype=torch.float64)
    return Noised(x_0, t, eps, q_sample(schedule, x_0, t, eps)), output


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("weighting", [VariationalBound(), Hybrid()], ids=["bound", "hybrid"])
def test_losses_and_gradients_are_theirs(weighting: Weighting, objective: str, variance: str, schedule: str):
    chain = SCHEDULES[schedule]
    noised, output = given(chain, VARIANCES[variance])
    output.requires_grad_()
    parametrization = Parametrization(OBJECTIVES[objective], VARIANCES[variance])
    found = weighting.losses(parametrization, chain, noised, output)
    theirs = ImprovedDiffusion(chain.betas).losses(
        objective, variance, noised, output, isinstance(weighting, VariationalBound)
    )
    torch.testing.assert_close(found, theirs, rtol=1e-9, atol=1e-12)
    gradients = [torch.autograd.grad(losses.sum(), output)[0] for losses in (found, theirs)]
    assert gradients[1].abs().amax((1, 2, 3)).min() > 0
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
