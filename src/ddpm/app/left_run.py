"""What an earlier start left in a run directory: a run that may go on, or what nobody may overwrite."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        named = [f"{name} is {here!r} here and {there!r} there" for name, here, there in differing[:NAMED]]
        more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
        raise UsageError(
            f"{key}={self.directory}: holds another run: {', '.join(named)}{more}. Choose another directory; "
            f"ckpt={self.directory} KEY=VALUE goes on with that run in a new one and changes what may change"
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
    return bounded.json_values(directory / RECORD, MOST_BYTES)


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
    elsewhere = f"choose another directory, or go on from its checkpoints in a new one, ckpt={directory}"
    written = [name for name in WRITTEN if _has(directory / name)]
    try:
        (directory / RECORD).lstat()
        record = bounded.json_content(directory / RECORD, MOST_BYTES)
    except FileNotFoundError:
        if written:
            raise UsageError(
                f"{key}={directory}: holds {' and '.join(written)}, and no {RECORD} says of which run; "
                "choose another directory"
            ) from None
        return None
    except ValueError as error:
        raise UsageError(
            f"{key}={directory}: its {RECORD} cannot be read ({error}), and nothing else tells which run it "
            f"is; {elsewhere}"
        ) from error
    if not isinstance(record, dict) or "status" not in record:
        raise UsageError(f"{key}={directory}: its {RECORD} is of another program; choose another directory")
    layout = record.get("layout", 0)
    if not isinstance(layout, int) or layout > LAYOUT:
        by = (record.get("versions") or {}).get("ddpm", "a newer version")
        raise UsageError(
            f"{key}={directory}: its {RECORD} has layout {layout}, written by ddpm {by}; this version knows "
            f"{LAYOUT} at most. Continue it with that version, or choose another directory"
        )
    if not (directory / OWN).exists():
        if written:
            raise UsageError(f"{key}={directory}: its {OWN} is missing; {elsewhere}")
        return None  # killed between the two
    return LeftRun(directory, record, read_own(directory / OWN))


def is_complete(record: Mapping[str, Any]) -> bool:
    """Whether a record says that its run came to an end of its own. The time limit of a start is none."""
    why = str(record.get("why") or "")
    return bool(record.get("status") == "finished" and not why.startswith("trainer.max_time"))


def starts(record: Mapping[str, Any]) -> Sequence[int]:
    """The steps that the starts of a run went on from, 0 for the one that began it."""
    return [int(start.get("step", 0)) for start in record.get("starts") or ()]


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
