"""The mathematics of denoising diffusion. Imports torch and nothing else of this project."""

from ddpm.diffusion.denoiser import Denoise, Denoiser, Known
from ddpm.diffusion.parametrization import Parametrization, Prediction
from ddpm.diffusion.process import (
    Noise,
    NoiseSchedule,
    evenly_spaced,
    predict_eps,
    predict_x_0,
    q_posterior_mean,
    q_sample,
)

__all__ = [
    "Denoise",
    "Denoiser",
    "Known",
    "Noise",
    "NoiseSchedule",
    "Parametrization",
    "Prediction",
    "evenly_spaced",
    "predict_eps",
    "predict_x_0",
    "q_posterior_mean",
    "q_sample",
]
