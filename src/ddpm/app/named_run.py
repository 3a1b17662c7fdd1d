"""Refusing what is named as a trained run and is none, by what it is instead."""

import os
from pathlib import Path

from ddpm import bounded
from ddpm.app.grammar import absolute
from ddpm.errors import UsageError

RECORD, SWEEP = "run.json", "sweep.json"
"""As `left_run` and `sweeps.record` call them, both of which need the check that this is part of."""

MOST_NAMED = 4
"""Jobs of a sweep that a message names."""


def check_run(run: str | Path, key: str = "", go_on: str = "") -> None:
    """Refuse a sweep, a run that has left no checkpoint, and what is not there.

    Whether a file is a checkpoint is told when it is read.

    Args:
        run: as a person has named it.
        key: under which; empty for an argument that has none.
        go_on: what to type for the whole of a sweep, with `{sweep}` in the place of its directory.

    Raises:
        UsageError: naming it, and what to name instead.
    """
    path, key = absolute(str(run)), f"{key}=" if key else ""
    called = f"{key}{path}"
    if os.path.islink(path) and not os.path.exists(path):
        raise UsageError(f"{called}: is a link to {os.readlink(path)}, which is not there")
    if not os.path.lexists(path):
        raise UsageError(f"{called}: there is no such run directory or checkpoint file")
    if not path.is_dir() or _has_checkpoint(path):
        return
    if jobs := _jobs(path):
        words = [f"{key}{path / name}" for name in jobs]
        named = words if len(words) <= MOST_NAMED else [*words[: MOST_NAMED - 1], f"... {words[-1]}"]
        whole = f"; {go_on.format(sweep=path)}" if go_on and (path / SWEEP).is_file() else ""
        raise UsageError(f"{called}: is a sweep of {len(jobs)} jobs; name one: {', '.join(named)}{whole}")
    if (path / SWEEP).is_file():
        raise UsageError(
            f"{called}: is a sweep, of which no job has left a run; python -m ddpm sweep {path} shows them"
        )
    if (status := _status(path)) is not None:
        raise UsageError(
            f"{called}: is a run without a checkpoint, it ended before its first or is on the way to it "
            f"(run.json says {status}); name another, or start it again"
        )


def check_foreign(source: Path) -> None:
    """Refuse to import what this program has left itself.

    Raises:
        UsageError: naming what takes it as it is.
    """
    path = absolute(str(source))
    if (path / SWEEP).is_file() or (path.is_dir() and _jobs(path)):
        raise UsageError(
            f"{source}: is a sweep of this program, whose runs need no import; python -m ddpm sweep "
            f"{source} lists them"
        )
    if (path / RECORD).is_file():
        raise UsageError(
            f"{source}: is a run of this program, which needs no import; name it as it is, ckpt={source}"
        )
    folder = path.resolve().parent
    if folder.name == "checkpoints" and (folder.parent / RECORD).is_file():
        raise UsageError(
            f"{source}: is a checkpoint of a run of this program, which needs no import; name it as it is, "
            f"ckpt={source}"
        )


def _has_checkpoint(directory: Path) -> bool:
    places = (directory, directory / "checkpoints")
    return any(next(place.glob("*.ckpt"), None) is not None for place in places)


def _jobs(directory: Path) -> list[str]:
    """The names of a sweep's jobs that have begun, in a directory that is one and no run itself."""
    if (directory / RECORD).exists():
        return []
    jobs = (path.parent.name for path in directory.glob(f"*/{RECORD}") if path.parent.name.isdecimal())
    return sorted(jobs, key=int)


def _status(directory: Path) -> str | None:
    """How a run has ended, if it is one."""
    try:
        return str(bounded.json_values(directory / RECORD).get("status", "no status"))
    except UsageError:
        return None
