"""What several runs are called in a legend: what their configurations differ in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ddpm.options import option, options

COMPARED = (
    "data", "conditional", "schedule", "objective", "variance", "weighting", "timesteps", "model",
    "optimizer", "lr_schedule", "ema", "trainer", "seed",
)  # fmt: skip
"""What makes a run what it is; the order in which differences are named."""

LEFT_OUT = ("default_root_dir", "logger", "callbacks", "plugins", "devices", "accelerator", "num_nodes")
"""Of the trainer: where a run was, not what."""

OF_THE_PROCESS = ("schedule", "objective", "variance", "weighting")
"""What a figure of noise schedules shows."""

FOLLOWS = ("lr_schedule.total_steps",)
"""What says the same as another key, how long a run is."""

ALWAYS = ("schedule.num_timesteps",)
"""What is named wherever it differs, though another option explains it: T scales the axis of a figure."""

MOST = 3
"""Differences that are named."""


def labels(
    configs: Sequence[Mapping[str, Any]], names: Sequence[str], among: Sequence[str] = COMPARED
) -> list[str]:
    """schedule=cosine, or lr=0.001 seed=1; the name of a run where another has the same label.

    Args:
        configs: of the runs, plain containers.
        names: of their directories.
        among: groups that are compared, of `COMPARED`.
    """
    own = [dict(_leaves(config, among)) for config in configs]
    keys = list(dict.fromkeys(key for values in own for key in values))
    keys = [key for key in keys if any(values.get(key) != own[0].get(key) for values in own)]
    keys.sort(key=lambda key: COMPARED.index(key.split(".")[0]))
    chosen = [key for key in keys if "." not in key]
    # what differs within a group of which other options were chosen is part of the choice
    keys = [key for key in keys if "." not in key or key in ALWAYS or key.split(".")[0] not in chosen]
    keys = [key for i, key in enumerate(keys) if i < MOST or key in ALWAYS]
    found = [" ".join(f"{_short(key)}={_value(values.get(key))}" for key in keys) for values in own]
    return [
        text if text and found.count(text) == 1 else f"{text} ({name})" if text else name
        for text, name in zip(found, names, strict=True)
    ]


def _leaves(config: Mapping[str, Any], among: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for group in among:
        yield from _within(group, config.get(group))


def _within(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Key and value of what holds nothing itself; the target of a group stands under the group's own key."""
    if not isinstance(node, Mapping):
        yield key, node
        return
    for name, child in node.items():
        if name == "_target_":
            yield key, _option(key, str(child))
        elif not (key == "trainer" and name in LEFT_OUT) and f"{key}.{name}" not in FOLLOWS:
            yield from _within(f"{key}.{name}", child)


def _option(group: str, target: str) -> str:
    """The name under which a target is chosen, or its own where that is not one."""
    found = [name for name in options(group) if option(group, name).get("_target_") == target]
    return found[0] if len(found) == 1 else target.rpartition(".")[2]


def _short(key: str) -> str:
    return key.rpartition(".")[2]


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
