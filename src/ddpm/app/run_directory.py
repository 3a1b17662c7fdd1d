"""Where a run writes: one directory for all its processes, decided once, shared with no other run."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ddpm.errors import UsageError


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
    """

    directory: Path
    sweep: str | None = None
    label: str | None = None
    command: tuple[str, ...] = ()
    cwd: Path = Path()
    choices: Mapping[str, str] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()


def register_resolver() -> None:
    """Make `${run_dir:APP,PART,...}` available to configurations: logs/APP/<date>_<time>_<parts>, absolute.

    All processes that torchrun or SLURM starts for one job find the same directory, derived from the job's
    id.
    """
    OmegaConf.register_new_resolver("run_dir", _run_dir, replace=True)


def claim(directory: Path) -> Path:
    """Make a new directory of this name, or with -2, -3 ... behind it where another run was faster."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    candidate, number = directory, 1
    while True:
        try:
            candidate.mkdir()
            return candidate
        except FileExistsError:
            number += 1
            candidate = directory.with_name(f"{directory.name}-{number}")


def again(origin: Path) -> Path:
    """Where a run writes that goes on from, or repeats, the one in a directory: today's date, its name."""
    name = re.sub(
        r"^(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_torchrun)?|(torchrun|slurm)_[^_]*(_\d+)?)_?", "", origin.name
    )
    return Path(_run_dir(origin.parent.name if origin.parent.parent.name == "logs" else "train", name))


def enter(directory: Path, config: Mapping[str, Any], *, named: bool) -> Path:
    """Make the run directory for this run alone; or take the one that the user named, if it is unused.

    All processes of a job share one, which its leader sees to.

    Args:
        directory: that the configuration says.
        config: of the run; says which run it continues.
        named: whether the user typed the directory.

    Raises:
        UsageError: where another run is in it.
    """
    shared = number_of_processes() > 1
    if "LOCAL_RANK" in os.environ and not (shared and is_leader()):
        return directory
    if not named and not shared:
        return claim(directory)
    ckpt = Path(os.path.expanduser(config.get("ckpt") or "/")).absolute()
    for left in ("run.json", "samples.npz"):
        if (directory / left).exists() and (left != "run.json" or directory not in (ckpt, *ckpt.parents)):
            hint = f", or continue that run with ckpt={directory}" if left == "run.json" else ""
            raise UsageError(
                f"{directory}: holds {left} of another run already; choose another directory{hint}"
            )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def is_leader() -> bool:
    """Whether this process speaks and writes for all that do the same work."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))
    return rank == "0"


@cache
def _run_dir(app: str, *parts: str) -> str:
    slug = "_".join(_word(part) for part in parts if part)
    when = _job() or f"{datetime.now():%Y-%m-%d_%H-%M-%S}"
    return str(Path("logs", app, f"{when}_{slug}" if slug else when).absolute())


def _word(part: object) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", str(part)).strip("-")


def number_of_processes() -> int:
    """How many processes of one job torchrun or srun started, this one among them; 1 for a lone process."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ.get("WORLD_SIZE", "1"))
    if "SLURM_PROCID" in os.environ:
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def _job() -> str | None:
    """A name for the job that this process belongs to, equal in all its processes; None for a lone one."""
    if number_of_processes() == 1:
        return None
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
    if "SLURM_PROCID" in os.environ:
        return f"slurm_{os.environ['SLURM_JOB_ID']}_{os.environ.get('SLURM_STEP_ID', '0')}"
    return None


def _parent_start() -> datetime:
    """When torchrun, the parent of all processes on this node, was started (Linux)."""
    try:
        stat = Path(f"/proc/{os.getppid()}/stat").read_text()
        boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    except OSError as error:
        raise UsageError("hydra.run.dir: name it, or give torchrun an --rdzv-id, on this system") from error
    ticks = int(stat.rpartition(")")[2].split()[19])
    return datetime.fromtimestamp(int(boot.split()[1]) + ticks // os.sysconf("SC_CLK_TCK"))
