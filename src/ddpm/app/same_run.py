"""What makes two configurations the same run, and where they differ."""

import hashlib
import inspect
import platform
from collections.abc import Collection, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ddpm.app.groups import PROVIDED
from ddpm.targets import resolve

CONTINUED = (
    "seed", "data", "schedule", "objective", "variance", "weighting", "timesteps", "model", "conditional",
    "optimizer", "ema", "trainer.accumulate_grad_batches", "trainer.limit_train_batches",
    "trainer.overfit_batches",
)  # fmt: skip
"""What must be as it was for a run to continue; where it differs it would be another run."""

TOGETHER = (
    "lr_schedule", "on_nonfinite", "strategy", "trainer.max_steps", "trainer.precision",
    "trainer.gradient_clip_val", "trainer.val_check_interval", "trainer.limit_val_batches",
)  # fmt: skip
"""What all ranks must have alike, though it may change from start to start."""

UNCOMPARED = ("_partial_", "_recursive_", "_convert_")
"""Keys of a node that say how it is built, not what."""

FREE = (
    "data.path", "data.condition.path", "data.cache_dir", "data.cache_limit", "data.split",
    "data.validation_split", "data.micro_batch", "data.device_share", "data.num_workers", "data.source.path",
    "model.compile", "model.channels_last", "model.cuda_graphs", "optimizer.fused", "optimizer.foreach",
)  # fmt: skip
"""Keys of them that may differ all the same: the images are compared by their contents."""

Difference = tuple[str, Any, Any]
"""A key, its value here and its value there."""


def differences(
    here: Mapping[str, Any], there: Mapping[str, Any], names: Collection[str] = CONTINUED
) -> list[Difference]:
    """Where two configurations of runs differ in what must not.

    Args:
        here: a checked configuration.
        there: another, whose targets are admitted.
        names: of what is compared, with dots.
    """
    here = accumulated_as(here, there)
    return [
        difference
        for name in names
        for difference in _within(name, _select(here, name), _select(there, name))
        if difference[0] not in FREE
    ]


def identity(config: Mapping[str, Any], fingerprint: str) -> dict[str, str]:
    """What every rank of a run must have alike, as text by name: code, versions, images, and what makes the
    run in its configuration.

    Args:
        config: checked.
        fingerprint: of the images.
    """
    found = {**machine_identity(), "the set of images": fingerprint}
    for name in (*CONTINUED, *TOGETHER):
        found |= {key: repr(value) for key, value in leaves(name, _select(config, name)) if key not in FREE}
    return found


def machine_identity() -> dict[str, str]:
    """What every rank must have alike of its environment, as text by name."""
    return {
        "the code of ddpm": _hash_of_code(),
        "Python": platform.python_version(),
        **{package: version(package) for package in ("torch", "lightning", "numpy")},
    }


def _hash_of_code() -> str:
    """Of the package's own files."""
    package = Path(__file__).parents[1]
    hashed = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        hashed.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return hashed.hexdigest()[:12]


def leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """What stands in a node that holds nothing itself: full key and value."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from leaves(f"{key}.{name}", child)
    else:
        yield key, node


def as_begun(
    lr_schedule: Mapping[str, Any], own: Mapping[str, Any], max_steps: int, starts: Collection[int]
) -> Mapping[str, Any]:
    """The run's own learning-rate schedule, where what is typed means the same one.

    A schedule that is typed beside `ckpt=` and lasts as long as the run has the steps that were left then;
    the same command still says all of them.

    Args:
        lr_schedule: as typed.
        own: the run's.
        max_steps: as typed.
        starts: the steps that the run's starts went on from.
    """
    if lr_schedule.get("total_steps") != max_steps:
        return lr_schedule
    shifted = [{**lr_schedule, "total_steps": max_steps - step} for step in starts]
    return own if dict(own) in shifted else lr_schedule


def accumulated_as(config: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration with the accumulation that a run was begun with, where `data.micro_batch` leaves that
    open: what is random by micro-batch would differ with another.

    Args:
        config: as typed.
        own: the run's.
    """
    begun = _select(own, "trainer.accumulate_grad_batches")
    is_open = _select(config, "data.micro_batch") and config["trainer"]["accumulate_grad_batches"] == 1
    return config if not is_open or begun is None else accumulated(config, begun)


def accumulated(config: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The configuration with this `trainer.accumulate_grad_batches`."""
    return {**config, "trainer": {**config["trainer"], "accumulate_grad_batches": number}}


def _select(config: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name, or None."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _whole(key: str, node: Any) -> Any:
    """A node with what its constructor does where nothing is said, so that the two can be compared."""
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        return node
    parameters = inspect.signature(resolve(key, node["_target_"])).parameters.values()
    defaults = {
        parameter.name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for parameter in parameters
        if parameter.default is not parameter.empty and parameter.name not in PROVIDED.get(key, ())
    }
    return {**defaults, **{name: value for name, value in node.items() if name not in UNCOMPARED}}


def _within(key: str, here: Any, there: Any) -> list[Difference]:
    if here == there:  # most often, and without importing what they name
        return []
    here, there = _whole(key, here), _whole(key, there)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return [
            difference
            for name in sorted({*here, *there})
            for difference in _within(f"{key}.{name}", here.get(name), there.get(name))
        ]
    return [] if here == there else [(key, here, there)]
