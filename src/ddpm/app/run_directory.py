"""Where a run writes: one directory for all its processes, decided once, shared with no other run.

A directory that was named, or that a job's id names, is found again by the same command, which goes on with
the run in it. Every process of a run comes to the same decision by itself, from files that nobody changes
before all have met: the leader alone holds the lock, and refuses.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ddpm.app import lock
from ddpm.app.left_run import LeftRun, check_kinds, is_within, left_in
from ddpm.app.lock import Lock
from ddpm.app.request import Request, asked_in
from ddpm.errors import UsageError

RESULTS = ("samples.npz", "images", "metrics.json")
"""What sample.py and evaluate.py write, whole, when they are through."""

PICTURES = ("progressive.png", "shared.png", "interpolation.png", "variations.png", "start.png", "end.png")
"""What sample.py draws beside the grid, where it is asked to."""

COMPARED = "compared"
"""Where evaluate.py has a folder for each run that it compares."""

ASKED_FOLDERS = ("pieces", "images", COMPARED)
ASKED_FILES = (
    "samples.npz",
    "metrics.json",
    "request.json",
    "grid.png",
    "sample.log",
    "evaluate.log",
    "compare.png",
    "values.png",
    ".lock",
)
"""What samples and measurements have in their directory."""

INTERACTIVE = ("bash", "sh", "zsh", "interactive")
"""What SLURM calls a job that is a shell."""


@dataclass(frozen=True)
class Place:
    """Where a job writes, and what it is part of.

    Attributes:
        directory: absolute.
        sweep: name of the sweep that it is a job of, or None.
        label: what sets it apart from the sweep's other jobs, or None.
        command: as it was typed.
        cwd: where it was typed.
        choices: the option of each group.
        overrides: of the command, in Hydra's grammar.
        found_again: whether the same command finds the directory again.
        left: the run that an earlier start left there, which goes on.
        request: what an earlier start was asked for there, of a program that samples or measures.
        lock: on the directory, held by the leader.
    """

    directory: Path
    sweep: str | None = None
    label: str | None = None
    command: tuple[str, ...] = ()
    cwd: Path = Path()
    choices: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    found_again: bool = False
    left: LeftRun | None = None
    request: Request | None = None
    lock: Lock | None = None


@dataclass(frozen=True)
class Entered:
    """A directory that a run may write to; its attributes are those of `Place`."""

    directory: Path
    found_again: bool = False
    left: LeftRun | None = None
    request: Request | None = None
    lock: Lock | None = None


def register_resolver() -> None:
    """Make `${run_dir:APP,PART,...}` available to configurations: logs/APP/<date>_<time>_<parts>, absolute.

    All processes that torchrun or SLURM starts for one job find the same directory, derived from the job's
    id.
    """
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)


def claim(directory: Path) -> Path:
    """Make a new directory of this name, or with -2, -3 ... behind it where another run was faster."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for candidate in numbered(directory):
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            continue
    raise AssertionError("there is always another number")


def numbered(directory: Path) -> Iterator[Path]:
    """NAME, NAME-2, NAME-3 ..."""
    yield directory
    yield from (directory.with_name(f"{directory.name}-{number}") for number in count(2))


def again(origin: Path) -> Path:
    """Where a run writes that goes on from, or repeats, the one in a directory: today's date, its name."""
    name = re.sub(
        r"^(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_torchrun)?|(torchrun|slurm)_[^_]*(_\d+)?)_?", "", origin.name
    )
    return Path(_run_dir(origin.parent.name if origin.parent.parent.name == "logs" else "train", name))


def enter(directory: Path, config: Mapping[str, Any], *, named: bool) -> Entered:
    """Make the directory of a run, or go into the one that the user or a job's id named.

    Args:
        directory: that the configuration says.
        config: of the program, checked. One that trains says in `resume` whether a run that is there already
            goes on.
        named: whether the user typed the directory.

    Raises:
        UsageError: where somebody writes there, or what is there is no run that this command goes on with.
    """
    found_again = named or _job() is not None
    if "ckpt" not in config:
        return Entered(_enter_unused(directory, named=named))
    if "resume" not in config:
        return _enter_asked(directory, config, named=named)
    if not is_leader():
        return Entered(directory, found_again, _left_for_a_follower(directory, config))
    if not found_again:
        directory = claim(directory)
        return Entered(directory, lock=lock.take(directory))
    if not named and _is_lone_job():
        return _among_the_jobs(directory, config)
    directory.mkdir(parents=True, exist_ok=True)
    return _hold(directory, config)


def _enter_unused(directory: Path, *, named: bool) -> Path:
    """A directory for what a program writes once: a new one, or the one that was named."""
    if not is_leader():
        return directory
    if not named and number_of_processes() == 1:
        return claim(directory)
    _refuse_results(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _enter_asked(directory: Path, config: Mapping[str, Any], *, named: bool) -> Entered:
    """A directory for samples or measurements: a new one, or one in which the same request goes on."""
    found_again = named or _job() is not None
    if not is_leader():
        return Entered(directory, found_again, request=asked_in(directory))
    if not found_again:
        directory = claim(directory)
        return Entered(directory, lock=lock.take(directory))
    one_of_many = not named and _is_lone_job()
    for candidate in numbered(directory) if one_of_many else [directory]:
        check_kinds(candidate, "out", ASKED_FOLDERS, ASKED_FILES)
        asked = asked_in(candidate)
        if one_of_many and asked is not None and not asked.is_of(config):
            continue
        candidate.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.take(candidate)
        except lock.HeldError:
            if not one_of_many or asked is not None:  # by this very command
                raise
            continue
        try:
            asked = asked_in(candidate)  # which another start may have written while this one waited
            if asked is None:
                _refuse_results(candidate)
            else:
                asked.refuse_another(candidate, config)
        except BaseException:
            held.release()
            raise
        return Entered(candidate, True, request=asked, lock=held)
    raise AssertionError("there is always another number")


def _refuse_results(directory: Path) -> None:
    """Refuse a directory that holds what nobody may overwrite."""
    for left in ("run.json", *RESULTS, "pieces", COMPARED):
        if (directory / left).exists():
            raise UsageError(f"{directory}: holds {left} of another run already; choose another directory")


def _hold(directory: Path, config: Mapping[str, Any]) -> Entered:
    """Lock a directory, and go on with the run in it.

    Raises:
        UsageError: as `enter`.
    """
    check_kinds(directory)
    held = lock.take(directory)
    try:
        left = left_in(directory)
        if left is not None and not is_within(config.get("ckpt") or "/", directory):
            if config["resume"] == "never":
                raise UsageError(
                    f"hydra.run.dir={directory}: holds a run already, and resume=never; choose another "
                    "directory, or leave resume=never out to go on with it"
                )
            left.refuse_another(config, "hydra.run.dir")
    except BaseException:
        held.release()
        raise
    return Entered(directory, True, left, lock=held)


def _among_the_jobs(directory: Path, config: Mapping[str, Any]) -> Entered:
    """The directory of this command among those that one job of a cluster has made, one after the other: its
    own one, which goes on, or a new one.
    """
    if config["resume"] == "never":
        directory = claim(directory)
        return Entered(directory, True, lock=lock.take(directory))
    directory.parent.mkdir(parents=True, exist_ok=True)
    for candidate in numbered(directory):
        candidate.mkdir(exist_ok=True)
        left = None
        try:
            left = left_in(candidate)
            if left is None or not left.differences(config):
                return _hold(candidate, config)
        except lock.HeldError:
            if left is not None:  # by this very command
                raise
        except UsageError:
            continue
    raise AssertionError("there is always another number")


def _left_for_a_follower(directory: Path, config: Mapping[str, Any]) -> LeftRun | None:
    """The run that goes on, for a process that leaves refusing to its leader, which may be ahead of it."""
    try:
        return left_in(directory) if config["resume"] != "never" else None
    except UsageError:
        return None


def is_leader() -> bool:
    """Whether this process speaks and writes for all that do the same work."""
    if "RANK" in os.environ:  # torchrun
        return os.environ["RANK"] == "0"
    # what Lightning starts, what a person starts on each node, what srun starts
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"))


@cache
def _run_dir(app: str, *parts: str) -> str:
    slug = "_".join(_word(part) for part in parts if part)
    when = _job() or f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return str(Path("logs", app, f"{when}_{slug}" if slug else when).absolute())


def _word(part: object) -> str:
    return re.sub(r"[^\w.-]+", "-", str(part)).strip("-")  # letters of any script


def number_of_processes() -> int:
    """How many processes of one job torchrun or srun started, this one among them; 1 for a lone process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1"))
    if "SLURM_PROCID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def _job() -> str | None:
    """A name for the job that this process belongs to, equal in all its processes and whenever the job is
    started again; None for a process that nobody counts.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is not None and run_id != "none":
        return f"torchrun_{_word(run_id)}"
    if run_id == "none":
        if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
            raise UsageError(
                "hydra.run.dir: several nodes need a common run directory; give torchrun an --rdzv-id, "
                "or name the directory with hydra.run.dir=PATH"
            )
        return f"{_parent_start():%Y-%m-%d_%H-%M-%S}_torchrun"
    if (job := lone_job()) is not None:
        return job
    if number_of_processes() > 1:
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ.get('SLURM_STEP_ID', '0')}"
    return None


def lone_job() -> str | None:
    """A name for the job of SLURM that this lone process belongs to."""
    return f"slurm_{os.environ['SLURM_JOB_ID']}" if _is_lone_job() else None


def _is_lone_job() -> bool:
    """Whether this is a lone process that a batch script of SLURM runs, perhaps as one of several in a row.

    In a shell that somebody got from SLURM each command is one of its own, as in any shell.
    """
    return (
        "SLURM_JOB_ID" in os.environ
        and "TORCHELASTIC_RUN_ID" not in os.environ
        and number_of_processes() == 1
        and os.environ.get("SLURM_JOB_NAME") not in INTERACTIVE
    )


def _parent_start() -> datetime:
    """When torchrun, the parent of all processes on this node, was started (Linux)."""
    try:
        stat = Path(f"/proc/{os.getppid()}/stat").read_text()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except OSError as error:
        raise UsageError("hydra.run.dir: name it, or give torchrun an --rdzv-id, on this system") from error
    ticks = int(stat.rpartition(")")[2].split()[19])
    return datetime.fromtimestamp(int(boot.split()[1]) + ticks // os.sysconf("SC_CLK_TCK"))
