"""The sampler and the guidance that a run draws with: its own, or those of the command line."""

from collections.abc import Mapping
from typing import Any

from ddpm.app.own import own_settings
from ddpm.diffusion.guidance import Guidance
from ddpm.diffusion.samplers import Sampler
from ddpm.diffusion.validity import check_combination
from ddpm.errors import UsageError
from ddpm.run import Run
from ddpm.targets import build


def sampler_and_guidance(run: Run, config: Mapping[str, Any]) -> tuple[Sampler, Guidance]:
    """Both, built, and checked against the run.

    Args:
        run: that draws.
        config: of the command line.

    Raises:
        UsageError: where they do not fit the run or each other.
    """
    module = run.module
    if module.num_classes is None and config["guidance"]:
        raise UsageError(
            "guidance: this run was trained without classes; leave it out, or train with conditional=true"
        )
    sampler: Sampler = build("sampler", own_settings(run, config, "sampler"))
    guidance: Guidance = build("guidance", own_settings(run, config, "guidance"))
    try:
        check_combination(
            schedule=module.schedule,
            objective=module.objective,
            variance=module.variance,
            weighting=module.weighting,
            sampler=sampler,
            guidance=guidance,
            num_classes=module.num_classes,
            label_drop=run.config.get("data", {}).get("label_drop", 0.0),
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    return sampler, guidance
