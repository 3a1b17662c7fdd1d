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
    if group == "data" and "condition" in own:
        given = {**given, "condition": _condition(given.get("condition"), own["condition"])}
    if "_target_" in given:
        return dict(given)
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


def _condition(given: Any, own: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The condition of a run, with what is typed of it.

    Raises:
        UsageError: where it has none.
    """
    if own is None and given is not None:
        raise UsageError(
            f"data.condition.{next(iter(given), '')}: this run is conditioned on nothing beside the class; "
            "leave it out"
        )
    return own if given is None else {**(own or {}), **given}
