"""What dashboards show of a run beside its curves: its configuration, flat and readable, and facts."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import Trainer

from ddpm import __version__, options
from ddpm.app.groups import WHOLE
from ddpm.app.run_record import git_commit
from ddpm.errors import UsageError
from ddpm.training.module import DDPM

OF_THE_COMMAND = ("logger", "allow_targets", "preflight", "verbose")
"""Keys that say nothing about what is trained."""


def shown(
    config: Mapping[str, Any] | None, data: Mapping[str, Any] | None, choices: Mapping[str, str]
) -> dict[str, Any]:
    """The configuration, resolved, a value a key with dots, as they are typed: so a search's values and ours
    are in one column.

    First come the options: `schedule` is `cosine` where that was chosen, and its settings are
    `schedule.offset` and so on. What was built without an option is named by its class.

    Args:
        config: of the run.
        data: its data set, described; under `data_set`.
        choices: the option of each group.
    """
    config = {name: value for name, value in (config or {}).items() if name not in OF_THE_COMMAND}
    named = {name: option for name, option in choices.items() if name in WHOLE}
    named |= {
        group: name for group, node in config.items() if (name := _option(group, node, choices)) is not None
    }
    return {**named, **{key: value for key, value in _leaves(config) if key not in named}, **_of(data)}


def _of(data: Mapping[str, Any] | None) -> dict[str, Any]:
    return dict(_leaves({"data_set": data or {}}))


def _option(group: str, node: Any, choices: Mapping[str, str]) -> str | None:
    """The option that a group's node is of; None where there is none, or it builds something else by now."""
    if not isinstance(node, Mapping) or group not in choices:
        return None
    try:
        # an option that is another one with some keys set does not say its class again
        target = options.option(group, choices[group]).get("_target_", node.get("_target_"))
    except UsageError:
        return None
    return choices[group] if node.get("_target_") == target else None


def _leaves(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if name == "_target_":
            yield path, value.rpartition(".")[2] if str(value).startswith("ddpm.") else value
        elif isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.{name}" if path else str(name))
        elif not str(name).startswith("_"):
            yield f"{path}.{name}" if path else str(name), value


def facts(trainer: Trainer, module: DDPM) -> dict[str, float | int | str]:
    """What a list of runs should tell beside losses: how large the network is, on how many processes it is
    trained, by which code.
    """
    found: dict[str, float | int | str] = {
        "parameters": module.num_parameters,
        "world_size": trainer.world_size,
        "flops_per_image": int(module.flops_per_image),  # of a forward pass
        "version": __version__,
    }
    if (git := git_commit()) is not None:
        found["commit"] = git["commit"] + ("-changed" if git["changed"] else "")
    return found
