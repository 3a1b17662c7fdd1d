"""Reverse processes: from noise, or from any x_t, to x_0."""

from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.sampler import Noise, OnStep, Sampler

__all__ = ["DDIM", "Ancestral", "Noise", "OnStep", "Sampler"]
