"""Reverse processes: from noise, or from any x_t, to x_0."""

from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.ddim_inversion import DDIMInversion
from ddpm.diffusion.samplers.deis import DEIS
from ddpm.diffusion.samplers.dpm_solver import DPMSolver
from ddpm.diffusion.samplers.flow_heun import FlowHeun
from ddpm.diffusion.samplers.heun import Heun
from ddpm.diffusion.samplers.rehearsal import random_steps, used_steps
from ddpm.diffusion.samplers.sampler import OnStep, Predict, Sampler
from ddpm.diffusion.samplers.spacing import Spacing
from ddpm.diffusion.samplers.trajectory import Trajectory, evenly_spread

__all__ = [
    "DDIM",
    "DEIS",
    "Ancestral",
    "DDIMInversion",
    "DPMSolver",
    "FlowHeun",
    "Heun",
    "OnStep",
    "Predict",
    "Sampler",
    "Spacing",
    "Trajectory",
    "evenly_spread",
    "random_steps",
    "used_steps",
]
