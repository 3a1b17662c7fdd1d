"""The pictures of the theory pages: `python docs/theory/figures.py [NAME ...]`, by default all of them.

They are written to docs/images/theory_NAME.png. Nothing is trained: schedules, digits, and closed forms.
"""

import sys
from pathlib import Path

import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from ddpm.diffusion import NoiseSchedule, Prediction, predict_eps, q_sample, schedules
from ddpm.diffusion.samplers import DDIM, DPMSolver, Heun

IMAGES = Path(__file__).parents[1] / "images"
NAMES = ("linear", "quadratic", "scaled_linear", "constant", "jsd", "cosine", "sigmoid", "laplace")


def draw_schedules() -> Figure:
    """alpha-bar and log-SNR by t."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name in NAMES:
        schedule = getattr(schedules, name)()
        left.plot(schedule.alphas_cumprod, label=name)
        right.plot(schedule.snr.log().clamp(min=-16))
    left.set(xlabel="t", ylabel="alpha-bar")
    right.set(xlabel="t", ylabel="log-SNR", ylim=(-13, 12))
    figure.legend(loc="outside right", frameon=False)
    return figure


def draw_forward() -> Figure:
    """Digits on their way to noise, by two schedules and the same noise."""
    x_0 = torch.tensor(load_digits().images[[0, 4, 8]]).float()[:, None] / 8 - 1
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    steps = [0, 100, 200, 400, 600, 800, 999]
    figure, axes = pyplot.subplots(2 * len(x_0), len(steps), figsize=(5.6, 5.2), layout="constrained")
    for row, axis_row in enumerate(axes):
        schedule = (schedules.linear, schedules.cosine)[row // len(x_0)]()
        for t, axis in zip(steps, axis_row, strict=True):
            x_t = q_sample(schedule, x_0, torch.full((len(x_0),), t), eps)[row % len(x_0), 0]
            axis.imshow(x_t, cmap="gray", vmin=-1, vmax=1)
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(f"t = {t}", fontsize=8)
        if row % len(x_0) == 1:
            axis_row[0].set_ylabel(("linear", "cosine")[row // len(x_0)])
    return figure


def draw_weights() -> Figure:
    """The factor of the squared error of eps in the bound, for both fixed variances, and in L_simple."""
    schedule = schedules.linear()
    betas, later = schedule.betas[1:], slice(1, None)
    factor = betas**2 / (2 * schedule.alphas[later] * (1 - schedule.alphas_cumprod[later]))
    figure, axis = pyplot.subplots(figsize=(5.6, 3.2), layout="constrained")
    steps = range(1, schedule.num_timesteps)
    axis.loglog(steps, factor / schedule.posterior_variance[later], label="bound, fixed_small")
    axis.loglog(steps, factor / betas, label="bound, fixed_large")
    axis.loglog(steps, torch.full_like(betas, 0.01), "--", label="simple (any constant)")
    axis.set(xlabel="t", ylabel="weight of the squared error of eps")
    axis.legend(frameon=False)
    return figure


def draw_samplers() -> Figure:
    """Error by uses of the network, where data are a Gaussian of standard deviation 0.5."""
    deviation, schedule = 0.5, schedules.linear()

    def denoise(chain: NoiseSchedule, x_t: torch.Tensor, t: torch.Tensor) -> Prediction:
        alpha_bar = chain.alphas_cumprod[t].view(-1, 1, 1, 1)
        x_0 = alpha_bar.sqrt() * deviation**2 / (alpha_bar * deviation**2 + 1 - alpha_bar) * x_t
        return Prediction(x_0, predict_eps(chain, x_t, t, x_0), torch.zeros_like(x_0))

    x_t = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    alpha_bar = schedule.alphas_cumprod[-1]
    exact = x_t * deviation / (alpha_bar * deviation**2 + 1 - alpha_bar).sqrt()
    figure, axis = pyplot.subplots(figsize=(5.6, 3.2), layout="constrained")
    for make in (DDIM, Heun, DPMSolver):
        samplers = [make(steps) for steps in (5, 10, 20, 40, 80, 160)]
        errors = [
            abs(float(s(denoise, schedule, x_t, noise=lambda t, like: torch.zeros_like(like)) - exact))
            for s in samplers
        ]
        axis.loglog([s.nfe(schedule) for s in samplers], errors, marker="o", label=make.__name__)
    axis.set(xlabel="uses of the network", ylabel="error of x_0")
    axis.legend(frameon=False)
    return figure


FIGURES = {
    "schedules": draw_schedules,
    "forward": draw_forward,
    "weights": draw_weights,
    "samplers": draw_samplers,
}


def main(names: list[str]) -> None:
    """Draw the figures that are named."""
    for name in names or FIGURES:
        FIGURES[name]().savefig(IMAGES / f"theory_{name}.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main(sys.argv[1:])
