"""What an earlier start left in a run directory: a run that may go on, or what nobody may overwrite."""

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpm import bounded, targets
from ddpm.app.grammar import absolute
from ddpm.app.run_configuration import OWN, read_own
from ddpm.app.same_run import CONTINUED, as_begun, differences
from ddpm.errors import UsageError

LAYOUT = 1
"""Of `run.json` and the directory around it. One without a number is earlier, and goes on as it is."""

RECORD = "run.json"
MOST_BYTES = 1 << 24
"""Of it: the names of 100,000 classes are below it."""

WRITTEN = ("checkpoints", "metrics.csv", "samples", OWN)
"""What a run writes, and another program may have put there."""

FOLDERS = ("checkpoints", "averages", "samples", "figures", "nonfinite", "wandb", "perf")
FILES = (RECORD, OWN, "metrics.csv", "train.log", ".lock")
"""What a run has in its directory."""

NAMED = 6
"""Differences that a message names."""


@dataclass(frozen=True)
class LeftRun:
    """A run that an earlier start left in a directory.

    Attributes:
        directory: of the run.
        record: what its `run.json` says.
        config: its own configuration.
    """

    directory: Path
    record: Mapping[str, Any]
    config: Mapping[str, Any]

    def has_nothing_left(self, config: Mapping[str, Any]) -> bool:
        """Whether a command of this run finds all done: the run came to an end of its own, and is to take no
        more steps than then.
        """
        then, now = (
            steps if steps >= 0 else math.inf for steps in (_max_steps(self.config), _max_steps(config))
        )
        in_place = is_within(config.get("ckpt") or "/", self.directory)
        return is_complete(self.record) and now <= then and not in_place

    def refuse_another(self, config: Mapping[str, Any], key: str) -> None:
        """Refuse a command that describes another run.

        Args:
            config: of the command.
            key: where the user named the directory.

        Raises:
            UsageError: naming what differs.
        """
        if not (differing := self.differences(config)):
            return
        self._refuse_another_length(differing, config, key)
        named = [f"{name} is {here!r} here and {there!r} there" for name, here, there in differing[:NAMED]]
        more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
        raise UsageError(
            f"{key}={self.directory}: holds another run: {', '.join(named)}{more}. Choose another directory; "
            f"ckpt={self.directory} KEY=VALUE goes on with that run in a new one and changes what may change"
        )

    def _refuse_another_length(
        self, differing: Sequence[tuple[str, Any, Any]], config: Mapping[str, Any], key: str
    ) -> None:
        """Where nothing but the end of the learning-rate schedule differs, and that because it follows
        `trainer.max_steps`: what was typed is the number of steps.
        """
        (name, here, there), *others = differing
        steps = config["trainer"]["max_steps"]
        if others or name != "lr_schedule.total_steps" or (here, there) != (steps, _max_steps(self.config)):
            return
        raise UsageError(
            f"trainer.max_steps={steps}: the learning rate of the run in {key}={self.directory} falls to 0 "
            f"at step {there}; "
            + (
                f"choose another schedule for what comes after, in a new directory: ckpt={self.directory} "
                f"trainer.max_steps={steps} lr_schedule=constant"
                if steps > there
                else f"keep that with lr_schedule.total_steps={there}, or choose another directory"
            )
        )

    def differences(self, config: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
        """What makes a command another run than this: key, value there, value here."""
        targets.check_names(f"{self.directory / OWN}: ", self.config, config["allow_targets"])
        own = self.config.get("lr_schedule") or {}
        schedule = as_begun(config["lr_schedule"], own, config["trainer"]["max_steps"], starts(self.record))
        return [
            *differences({**config, "lr_schedule": schedule}, self.config, (*CONTINUED, "lr_schedule")),
            *(
                (name, here, there)
                for name in ("ckpt", "init")
                if (here := self._origin(config, name)) != (there := self._origin(self.config, name))
            ),
        ]

    def _origin(self, config: Mapping[str, Any], name: str) -> str | None:
        """The other run that one began from, absolute; None where it began by itself or goes on in place."""
        path = config.get(name)
        if not isinstance(path, str) or is_within(path, self.directory):
            return None
        return str(absolute(path))


def read_record(directory: Path) -> dict[str, Any]:
    """What a run's `run.json` says.

    Raises:
        ValueError: where there is none that can be read.
    """
    record = bounded.json_values(directory / RECORD, MOST_BYTES)
    _check(record, directory / RECORD)
    return record


def _check(record: Mapping[str, Any], file: Path) -> None:
    """Refuse a record whose values are not what a run writes, as far as they are read again.

    Raises:
        UsageError: for the first.
    """

    def must(name: str, is_so: bool, what: str) -> None:
        if not is_so:
            raise UsageError(f"{file}: cannot be read, {name} must be {what}")

    must("status", isinstance(record.get("status", ""), str), "a word")
    must("wandb_id", isinstance(record.get("wandb_id") or "", str), "a text or null")
    must("wall_seconds", _is_number(record.get("wall_seconds") or 0), "a number or null")
    must("wandb_offline", _are(record.get("wandb_offline") or [], str), "a list of paths")
    must("rollbacks", _are(record.get("rollbacks") or [], dict), "a list of keys and values")
    must("starts", _are(record.get("starts") or [], dict), "a list of keys and values")
    for i, start in enumerate([record, *(record.get("starts") or [])]):
        name = f"starts[{i - 1}]." if i else ""
        must(f"{name}step", _is_step(start.get("step") or 0), "a number of steps")
        must(f"{name}started", _is_time(start.get("started")), "a time")
        must(f"{name}status", isinstance(start.get("status", ""), str), "a word")


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_time(value: Any) -> bool:
    """Whether it says when, or does not say it."""
    try:
        return value is None or datetime.fromisoformat(value).timestamp() >= 0
    except (TypeError, ValueError, OverflowError):
        return False


def left_in(directory: Path, key: str = "hydra.run.dir") -> LeftRun | None:
    """The run that is in a directory.

    Files that no run writes (notes, a cluster's log) are nobody's concern, and so is what a start that was
    killed at once left.

    Args:
        directory: absolute.
        key: where the user named it, for messages.

    Returns:
        None where there is nothing that a run could overwrite.

    Raises:
        UsageError: where there is, and it is no run that this version could go on with.
    """
    elsewhere = "choose another directory"
    if _has(directory / "checkpoints"):
        elsewhere += f", or go on from its checkpoints in a new one, ckpt={directory}"
    written = [name for name in WRITTEN if _has(directory / name)]
    try:
        (directory / RECORD).lstat()
        record = bounded.json_content(directory / RECORD, MOST_BYTES)
    except FileNotFoundError:
        if written:
            raise UsageError(
                f"{key}={directory}: holds {' and '.join(written)}, and no {RECORD} says of which run; "
                f"{elsewhere}"
            ) from None
        return None
    except ValueError as error:
        raise UsageError(f"{key}={directory}: nothing tells which run it is: {error}; {elsewhere}") from error
    layout = record.get("layout", 0) if isinstance(record, dict) else 0
    if not isinstance(layout, int) or layout > LAYOUT:
        versions = record.get("versions")
        by = versions.get("ddpm", "") if isinstance(versions, dict) else "of a newer version"
        raise UsageError(
            f"{key}={directory}: its {RECORD} has layout {layout}, written by ddpm {by}; this version knows "
            f"{LAYOUT} at most. Continue it with that version, or choose another directory"
        )
    if not isinstance(record, dict) or "status" not in record:
        raise UsageError(f"{key}={directory}: its {RECORD} is of another program; choose another directory")
    try:
        _check(record, directory / RECORD)
    except UsageError as error:
        raise UsageError(f"{key}={directory}: {error}; {elsewhere}") from error
    if not (directory / OWN).exists():
        if written:
            raise UsageError(f"{key}={directory}: its {OWN} is missing; {elsewhere}")
        return None  # killed between the two
    try:
        own = read_own(directory / OWN)
    except UsageError as error:
        raise UsageError(f"{key}={directory}: {error}; {elsewhere}") from error
    return LeftRun(directory, record, own)


def check_kinds(
    directory: Path,
    key: str = "hydra.run.dir",
    folders: Sequence[str] = FOLDERS,
    files: Sequence[str] = FILES,
) -> None:
    """Refuse a directory in which a file lies where a run has a folder, or the other way round: what is
    written there would be lost, hours later.

    Args:
        directory: absolute.
        key: where the user named it, for messages.
        folders, files: what is written there.

    Raises:
        UsageError: for the first.
    """
    for name in folders:
        if os.path.lexists(directory / name) and not (directory / name).is_dir():
            raise UsageError(
                f"{key}={directory}: {name} is no folder, and a run writes into it; move it away"
            )
    for name in files:
        if (directory / name).is_dir():
            raise UsageError(
                f"{key}={directory}: {name} is a folder, and a run writes a file there; move it away"
            )


def is_complete(record: Mapping[str, Any]) -> bool:
    """Whether a record says that its run came to an end of its own. The time limit of a start is none."""
    why = str(record.get("why") or "")
    return bool(record.get("status") == "finished" and not why.startswith("trainer.max_time"))


def starts(record: Mapping[str, Any]) -> Sequence[int]:
    """The steps that the starts of a run went on from, 0 for the one that began it."""
    return [start.get("step") or 0 for start in record.get("starts") or ()]


def logged_offline(directory: Path, record: Mapping[str, Any]) -> list[Path]:
    """Where W&B's part of a run was logged to while offline: a directory of W&B's for each start."""
    found = [directory / str(path) for path in record.get("wandb_offline") or ()]  # an absolute one stays so
    names = re.compile(rf"offline-run-[\d_]+-{re.escape(str(record.get('wandb_id')))}")
    return [path for path in found if names.fullmatch(path.name) and path.is_dir()]


def is_within(path: str, directory: Path) -> bool:
    """Whether a path that was typed leads to a run directory or into it."""
    found = absolute(path)
    return directory in (found, *found.parents)


def _max_steps(config: Mapping[str, Any]) -> float:
    return float(config["trainer"]["max_steps"])


def _has(path: Path) -> bool:
    """Whether there is a file, or a folder with anything in it."""
    return path.is_file() or (path.is_dir() and any(path.iterdir()))
