"""A scheduler of diffusers as the parts of a run that it states, and back. diffusers is not needed."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ddpm.diffusion import NoiseSchedule, schedules
from ddpm.diffusion.objectives import X0, Epsilon, Objective, V
from ddpm.diffusion.process import betas_between
from ddpm.diffusion.samplers import DDIM, DEIS, Ancestral, DPMSolver, Heun
from ddpm.diffusion.variances import FixedLarge, FixedSmall, LearnedRange, Variance
from ddpm.interop.foreign import process, target

OBJECTIVES: dict[str, type[Objective]] = {"epsilon": Epsilon, "sample": X0, "v_prediction": V}
"""`prediction_type` of a scheduler, and the objective that it is."""

VARIANCES: dict[str, type[Variance]] = {
    "fixed_small": FixedSmall,
    "fixed_small_log": FixedSmall,
    "fixed_large": FixedLarge,
    "learned_range": LearnedRange,
}
"""`variance_type` of a scheduler, and the variance that it is. Its `fixed_large_log` takes the root of a
logarithm, and its `learned` is a variance, not a logarithm: neither is ours."""

SCHEDULES: dict[str, Callable[..., NoiseSchedule]] = {
    "linear": schedules.linear,
    "scaled_linear": schedules.quadratic,
    "squaredcos_cap_v2": schedules.cosine,
}
"""`beta_schedule` of a scheduler, and the schedule that it is."""


def _sigmoid(steps: int, first: float, last: float) -> Tensor:
    """Betas that rise like a sigmoid from -6 to 6."""
    return torch.sigmoid(torch.linspace(-6, 6, steps, dtype=torch.float64)) * (last - first) + first


def _laplace(steps: int, *_: float) -> Tensor:
    """Betas with which the square of alpha-bar is a sigmoid of half of Laplace's quantiles."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    sign = torch.where(u > 0.5, -1.0, 1.0)
    log_snr = -0.5 * sign * torch.log(1 - 2 * (0.5 - u).abs() + 1e-6)
    return betas_between(torch.sigmoid(log_snr).sqrt()).clamp(max=0.999)


TABLES: dict[str, Callable[..., Tensor]] = {"sigmoid": _sigmoid, "laplace": _laplace}
"""`beta_schedule` of a scheduler that no schedule of ours is: its betas from their number and ends."""

SCHEDULER_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "clip_sample_range": 1.0,
    "sample_max_value": 1.0,
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
}
"""What a `DDPMScheduler` configuration means where it leaves a key out."""

NO_CLIPPING = {"clip_sample": False}
FROM_LINSPACE = {"timestep_spacing": "linspace"}
LEFT_OUT: dict[str, dict[str, Any]] = {
    "DDPMScheduler": {},
    "DDIMScheduler": {},
    "DPMSolverMultistepScheduler": FROM_LINSPACE,
    "DEISMultistepScheduler": FROM_LINSPACE,
    "HeunDiscreteScheduler": {**FROM_LINSPACE, **NO_CLIPPING, "beta_start": 0.00085, "beta_end": 0.012},
    "EulerDiscreteScheduler": FROM_LINSPACE,
    "EulerAncestralDiscreteScheduler": FROM_LINSPACE,
}
"""Schedulers that are known, and what their configurations mean otherwise where they leave a key out."""

NEVER_CLIPPING = (
    "DPMSolverMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
)
"""Schedulers that do not clip, even if another one's `clip_sample` is left in their configurations."""

IN_SIGMA = (
    "DPMSolverMultistepScheduler",
    "DEISMultistepScheduler",
    "HeunDiscreteScheduler",
    "EulerDiscreteScheduler",
)
"""Schedulers that may space steps in sigma; others leave such a setting of another one unread."""

WITHOUT_LOWEST = ("DPMSolverMultistepScheduler", "DEISMultistepScheduler")
"""Schedulers that space one step more than they take evenly, and leave out t = 0: within one of `trailing`,
but for what they call leading, which ends lower."""

OTHER_STEPS = (
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverSDEScheduler",
)
"""Schedulers of the same chains, whose steps no sampler here takes."""

FOLLOWED: dict[str, dict[str, tuple[Any, ...]]] = {
    "DDPMScheduler": {},
    "DDIMScheduler": {
        "set_alpha_to_one": (True,),
        "timestep_spacing": ("leading", "trailing"),  # theirs steps by T // num_steps, whatever it visits
    },
    "DPMSolverMultistepScheduler": {
        "solver_order": (2,),
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++"),
        "solver_type": ("midpoint",),
        "euler_at_final": (False,),
        "final_sigmas_type": ("zero",),
        "use_lu_lambdas": (False,),
        "lambda_min_clipped": (-math.inf,),
    },
    "DEISMultistepScheduler": {"solver_order": (1, 2, 3)},
    "HeunDiscreteScheduler": {},
    "EulerDiscreteScheduler": {
        "final_sigmas_type": ("zero",),
        "timestep_type": ("discrete",),
        "interpolation_type": ("linear",),
        "sigma_min": (None,),
        "sigma_max": (None,),
    },
    "EulerAncestralDiscreteScheduler": {},
}
"""The values that the sampler here which is nearest to a scheduler has, of settings where it has not all."""

SPACINGS = {"linspace": "uniform", "leading": "leading", "trailing": "trailing"}
"""Ours by theirs."""

MOST_STEPS = 1_000_000
"""Of a chain."""


def scheduler_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The `DDPMScheduler` that draws as our ancestral sampler does."""
    names = {}
    for group, known in (("objective", OBJECTIVES), ("variance", VARIANCES)):
        named = config[group]["_target_"]
        names[group] = next((name for name, ours in known.items() if target(ours)["_target_"] == named), None)
        if names[group] is None:
            raise ValueError(f"{group} {named.rpartition('.')[2]}: diffusers' DDPMScheduler has none such")
    betas = schedule_of(config["schedule"]).betas.tolist()
    return {
        "_class_name": "DDPMScheduler",
        **SCHEDULER_DEFAULTS,
        "num_train_timesteps": len(betas),
        "beta_start": betas[0],
        "beta_end": betas[-1],
        "trained_betas": betas,
        "variance_type": names["variance"],
        "prediction_type": names["objective"],
        "clip_sample": bool(config["clip_x_0"]),
        "clip_sample_range": float(config["clip_x_0"] or 1.0),
    }


def schedule_of(config: Mapping[str, Any]) -> NoiseSchedule:
    """A schedule of this project, as a checkpoint's configuration has it.

    Raises:
        ValueError: where it is somebody else's.
    """
    module, _, name = config["_target_"].rpartition(".")
    function = getattr(schedules, name, None)
    if function is None or module != schedules.__name__ or function.__module__ != module:
        raise ValueError(f"schedule {config['_target_']}: is not of this project, so its betas are unknown")
    return function(**{key: value for key, value in config.items() if not key.startswith("_")})


def complete(kind: str, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's configuration with what it leaves out.

    Args:
        kind: its class, one of `LEFT_OUT`.
        stated: its configuration.
    """
    given = {**SCHEDULER_DEFAULTS, **LEFT_OUT[kind], **stated}
    given["variance_type"] = given["variance_type"] or "fixed_small"  # of one that draws no noise
    if kind in NEVER_CLIPPING:
        given["clip_sample"] = False
    return given


def parts(kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[float]]:
    """The parts of a run's configuration that a scheduler decides, and its betas.

    The schedule is None where it is only listed, and none of ours.

    Args:
        kind: its class.
        given: its configuration, complete.

    Raises:
        ValueError: for the first setting that cannot be expressed.
    """
    for key, known in (("prediction_type", OBJECTIVES), ("variance_type", VARIANCES)):
        if given[key] not in known:
            raise ValueError(f"{key}={given[key]}: is none of {', '.join(known)}")
    end = given["clip_sample_range"]
    if given["clip_sample"] and not (type(end) in (int, float) and 0 < end < math.inf):
        raise ValueError(f"clip_sample_range={str(end)[:40]}: must be a number above 0")
    if given["thresholding"]:
        raise ValueError(
            "thresholding=True: x_0 is clipped at a fixed value here, not at a quantile of its own; with "
            "thresholding=false in the scheduler's configuration the same model draws without it"
        )
    clips = bool(given["clip_sample"])
    objective = OBJECTIVES[given["prediction_type"]]
    variance = VARIANCES[given["variance_type"]]
    schedule, betas = _betas(given)
    if (given["rescale_betas_zero_snr"] or betas[-1] == 1) and not objective.defined_at_zero_snr:
        raise ValueError(
            f"prediction_type={given['prediction_type']}: says nothing of x_0 where the schedule ends, "
            "at zero signal-to-noise ratio"
        )
    config = {
        **process(schedule, variance, objective),
        "clip_x_0": end if clips and end != 1 else clips,
        "sampler": _sampler(kind, given),
        "zero_terminal_snr": bool(given["rescale_betas_zero_snr"]),
    }
    return config, betas


def _betas(given: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[float]]:
    steps, kind, betas = given["num_train_timesteps"], given["beta_schedule"], given["trained_betas"]
    if type(steps) is not int or not 0 < steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps={str(steps)[:20]}: must be from 1 to {MOST_STEPS:,}")
    if betas is None:
        if kind in TABLES:
            return None, TABLES[kind](steps, given["beta_start"], given["beta_end"]).tolist()
        if kind not in SCHEDULES:
            raise ValueError(f"beta_schedule={kind}: is none of {', '.join([*SCHEDULES, *TABLES])}")
        config = _named_schedule(kind, steps, given["beta_start"], given["beta_end"])
        return config, schedule_of(config).betas.tolist()
    if len(betas) != steps:
        raise ValueError(f"trained_betas: are {len(betas)}, and num_train_timesteps={steps}")
    listed = NoiseSchedule(torch.tensor(betas, dtype=torch.float64)).betas
    for kind in SCHEDULES if betas[-1] < 1 else ():
        config = _named_schedule(kind, steps, betas[0], betas[-1])
        if torch.allclose(schedule_of(config).betas, listed, rtol=1e-5, atol=1e-7):
            return config, betas
    return None, betas


def _named_schedule(kind: str, steps: int, first: float, last: float) -> dict[str, Any]:
    if kind == "squaredcos_cap_v2":
        return target(SCHEDULES[kind], num_timesteps=steps)
    ends = {"beta_start": first * steps / 1000, "beta_end": last * steps / 1000}  # stated for 1000 steps
    return target(SCHEDULES[kind], num_timesteps=steps, **ends)


def _sampler(kind: str, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler here that is nearest to a scheduler, with our number of steps and its spacing.

    Raises:
        ValueError: for a scheduler of flow matching.
    """
    if kind in IN_SIGMA and scheduler.get("use_flow_sigmas"):
        raise ValueError("use_flow_sigmas=True: its noise levels are those of flow matching")
    spacing = SPACINGS.get(str(scheduler.get("timestep_spacing")), "uniform")
    if kind in WITHOUT_LOWEST:
        spacing = "trailing"
    if kind in IN_SIGMA and scheduler.get("use_karras_sigmas"):
        spacing = "karras"
    if kind == "DDPMScheduler":
        return target(Ancestral, spacing=spacing)
    if kind == "DDIMScheduler":
        return target(DDIM, spacing=spacing)
    if kind == "EulerDiscreteScheduler":  # in sigma, where DDIM without noise is Euler's method
        return target(DDIM, spacing=spacing)
    if kind == "EulerAncestralDiscreteScheduler":
        return target(DDIM, spacing=spacing, eta=1.0)
    if kind == "HeunDiscreteScheduler":
        return target(Heun, spacing=spacing)
    if kind == "DEISMultistepScheduler":
        return target(DEIS, spacing=spacing, order=min(int(scheduler.get("solver_order", 2)), 3))
    stochastic = str(scheduler.get("algorithm_type")).startswith("sde-")
    return target(DPMSolver, spacing=spacing, stochastic=stochastic)


def unfollowed(kind: str, scheduler: Mapping[str, Any]) -> list[str]:
    """The settings of a scheduler that the sampler nearest to it does not have."""
    followed = {
        "use_exponential_sigmas": (False,),
        "use_beta_sigmas": (False,),
        "timestep_spacing": tuple(SPACINGS),
        **FOLLOWED[kind],
    }
    if kind in WITHOUT_LOWEST:
        followed["timestep_spacing"] = ("linspace", "trailing")
    if scheduler["timestep_spacing"] == "leading":
        followed["steps_offset"] = (0,)
    return [
        f"{key}={scheduler[key]}"
        for key, values in followed.items()
        if scheduler.get(key, values[0]) not in values
    ]
