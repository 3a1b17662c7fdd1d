"""What a person sees of a sweep: the screen at its end, and the table at any time."""

import shlex
import sys
from pathlib import Path

from ddpm.app import lock, next_commands
from ddpm.app.next_commands import readable
from ddpm.app.sweeps import again, record
from ddpm.app.sweeps.table import table
from ddpm.runtime.writing import WriteError


def at_the_end(directory: Path, cwd: Path) -> str:
    """How a sweep ended, where everything is, and the commands that go on from here.

    Args:
        directory: of the sweep.
        cwd: from where paths are shown.
    """
    sweep = _kept(record.read(directory).looked_at())
    done = sum(job.is_done for job in sweep.jobs)
    shown = readable(directory, cwd)
    lines = ["", f"{done} of {len(sweep.jobs)} jobs finished", table(sweep.jobs, cwd), ""]
    lines.append(f"  everything    {shlex.quote(shown)}")
    if done < len(sweep.jobs):
        lines.append(f"  continue it   {next_commands.program(cwd, sweep.program)} {again.go_on(shown)}")
    lines.append(f"  look at it    {next_commands.command()} sweep {shlex.quote(shown)}")
    return "\n".join(lines)


def look(directory: Path) -> int:
    """Print the table of a sweep, best first, and keep it as sweep.json and sweep.csv beside the jobs.

    Returns:
        The exit code.

    Raises:
        UsageError: where the directory holds no sweep.
    """
    sweep = record.read(directory.absolute()).looked_at()
    if not lock.is_held(directory.absolute()):
        sweep = _kept(sweep)
    print(table(sweep.jobs, Path.cwd()))
    return 0


def _kept(sweep: record.Sweep) -> record.Sweep:
    try:
        sweep.write()
    except WriteError as error:
        print(f"warning: {error}", file=sys.stderr)
    return sweep
