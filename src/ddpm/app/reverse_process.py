"""The sampler and the guidance that a run draws with: its own, or those of the command line."""

from collections.abc import Mapping
from typing import Any

from ddpm.app.own import own_settings
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import Sampler
from ddpm.errors import UsageError
from ddpm.run import Run
from ddpm.targets import build
from ddpm.training.guides import with_guide


def sampler_and_guidance(run: Run, config: Mapping[str, Any]) -> tuple[Sampler, Guidance]:
    """Both, built, and checked against the run.

    Args:
        run: that draws.
        config: of the command line.

    Raises:
        UsageError: where they do not fit the run or each other.
    """
    module = run.module
    is_steered = module.num_classes is not None or module.condition_drop > 0
    if not is_steered and config["guidance"] and not _is_autoguidance(run, config):
        raise UsageError(
            "guidance: this run was trained without classes; leave it out, or train with conditional=true, "
            "or with a condition and data.condition_drop=0.1"
        )
    sampler: Sampler = build("sampler", own_settings(run, config, "sampler"))
    guidance: Guidance = build("guidance", own_settings(run, config, "guidance"))
    guidance = with_guide(guidance, module, config["allow_targets"])
    try:
        run.check(sampler, guidance)
    except ValueError as error:
        raise UsageError(str(error)) from error
    return sampler, guidance


def _is_autoguidance(run: Run, config: Mapping[str, Any]) -> bool:
    """Whether the guidance that is asked for needs no classes."""
    own = run.config.get("guidance") or {}
    target = config["guidance"].get("_target_", own.get("_target_"))
    return str(target).endswith(".Autoguidance")
