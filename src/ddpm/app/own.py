"""What is typed beside `ckpt=` for a group of the run's own: another option, or some of its settings."""

from collections.abc import Mapping
from typing import Any

from ddpm.app import check, outside
from ddpm.errors import UsageError
from ddpm.run import Run


def own_settings(run: Run, config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The settings of a group: those of the command line, and where they name no option, the run's own with
    what was set.

    Args:
        run: that is sampled or measured.
        config: of the command line.
        group: such as `sampler`.

    Raises:
        UsageError: where the run has none, or its own has no such key.
    """
    given, own = config[group] or {}, run.config.get(group) or {}
    if "_target_" in given:
        with_own = group == "data" and given.get("condition") is None and own.get("condition") is not None
        return {**given, "condition": own["condition"]} if with_own else dict(given)
    if "_target_" not in own:
        raise UsageError(f"{group}: this run says nothing about it; choose one with {group}=OPTION")
    settings = {**own, **given}
    if group == "data":
        outside.check_data(settings, given)
    try:
        check.check_group(group, settings, config["allow_targets"])
    except UsageError as error:
        kind = own["_target_"].rpartition(".")[2]
        raise UsageError(
            f"{error} ({group} of this run is {kind}; {group}=OPTION chooses another)"
        ) from error
    return settings
