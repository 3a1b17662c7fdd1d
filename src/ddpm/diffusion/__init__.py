"""The mathematics of denoising diffusion. Imports torch and nothing else of this project."""

from ddpm.diffusion.denoiser import Denoiser, Known, Prediction
from ddpm.diffusion.process import (
    NoiseSchedule,
    evenly_spaced,
    predict_eps,
    predict_x_0,
    q_posterior_mean,
    q_sample,
)

__all__ = [
    "Denoiser",
    "Known",
    "NoiseSchedule",
    "Prediction",
    "evenly_spaced",
    "predict_eps",
    "predict_x_0",
    "q_posterior_mean",
    "q_sample",
]
