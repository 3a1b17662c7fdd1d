"""What `python -m ddpm workspace` does: a W&B workspace or a report of a sweep, sent or written to a file."""

import json
import re
import shlex
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.app.sweeps import record, show
from ddpm.app.sweeps.table import table
from ddpm.doctor.environment import has_wandb_key, wandb_server
from ddpm.errors import UsageError
from ddpm.report import wandb_report
from ddpm.report import workspace as specification
from ddpm.report.wandb_report import Told
from ddpm.runtime.writing import write_whole

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

TARGET = re.compile(r"[^\s/:]+/[^\s/:]+")
"""ENTITY/PROJECT, as W&B takes it."""

SECONDS_TO_ANSWER = 10.0


def workspace(target: str, report: str | None = None, dry_run: Path | None = None) -> int:
    """Send a workspace, or a report of a sweep, and print its address; the exit code.

    Args:
        target: ENTITY/PROJECT.
        report: the directory of a sweep, or the name of a group of runs; None for the workspace.
        dry_run: a file that is written instead, as JSON.

    Raises:
        UsageError: where the extra, an account or a network is missing, or there is no such sweep.
        WriteError: where the file cannot be written.
    """
    if not TARGET.fullmatch(target):
        raise UsageError(f"{target}: must be ENTITY/PROJECT, such as my-team/ddpm")
    if find_spec("wandb_workspaces") is None:
        raise UsageError(
            "workspace: is made by wandb-workspaces, which is not installed: pip install 'ddpm[workspace]'"
        )
    entity, _, project = target.partition("/")
    told = None if report is None else told_of(report)
    if dry_run is None:
        _check_reachable()
    made = (
        specification.workspace(entity, project)
        if told is None
        else wandb_report.report(entity, project, told)
    )
    if dry_run is not None:
        write_whole(dry_run, json.dumps(described(made), indent=2, ensure_ascii=False) + "\n")
        print(dry_run)
        return 0
    try:
        made.save()
    except Exception as error:  # whatever W&B's library makes of what its server says
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UsageError(f"{target}: W&B has not taken it ({said})") from error
    print(made.url)
    return 0


def described(made: "ws.Workspace | wr.Report") -> dict[str, Any]:
    """What would be sent, plain containers."""
    found: dict[str, Any] = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return found


def told_of(report: str) -> Told:
    """What is known of a sweep by its directory, or of a group by its name alone.

    Raises:
        UsageError: where a directory holds no sweep.
    """
    directory = Path(report).expanduser()
    if not directory.is_dir():
        if "/" in report:
            raise UsageError(f"--report {report}: there is no such directory")
        return Told(report)
    directory = directory.absolute()
    sweep = record.read(directory).looked_at()
    if sweep.program != "train":
        raise UsageError(
            f"--report {report}: is a sweep of {sweep.program}.py, whose jobs are no runs of W&B"
        )
    monitor = sweep.monitor
    return Told(
        directory.name,
        f"python {sweep.program}.py -m {shlex.join(sweep.typed)}",
        table(sweep.ranked, directory, best_first=False, monitor=monitor),
        tuple(
            " ".join(line.split())
            for line in show.of_search(sweep, directory)
            if line.split()[0] != "picture"
        ),
        _keys(sweep.jobs) or specification.SWEPT,
        record.BITS if any(record.BITS in job.metrics for job in sweep.jobs) else monitor,
    )


def _keys(jobs: Sequence[record.Job]) -> tuple[str, ...]:
    """What was typed in which jobs differ, as W&B has it: options and keys by their names."""
    typed = dict.fromkeys(key for own in record.differing(jobs).values() for key in own)
    return tuple(key.replace("/", ".") for key in typed)


def _check_reachable() -> None:
    """Refuse to go on without a key or a network: W&B's library would try again for minutes.

    Raises:
        UsageError: naming what is missing.
    """
    instead = "; --dry-run FILE writes what would be sent"
    if not has_wandb_key():
        raise UsageError(f"workspace: there is no key of W&B; wandb login asks for one{instead}")
    server = wandb_server()
    try:
        urllib.request.urlopen(server, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except OSError as error:
        said = getattr(error, "reason", error)
        raise UsageError(f"workspace: {server} cannot be reached ({said}){instead}") from error
