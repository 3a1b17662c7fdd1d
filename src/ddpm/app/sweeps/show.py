"""What a person sees of a sweep: the screen at its end, and the table at any time."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ddpm.app import lock, next_commands
from ddpm.app.grammar import shown
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
    pruned = sum(job.status == "pruned" for job in sweep.jobs)
    where = readable(directory, cwd)
    early = f", {pruned} of them ended early" if pruned else ""
    lines = ["", f"{done} of {sweep.total} jobs finished{early}", _table(sweep, cwd), ""]
    lines += [*of_search(sweep, cwd), *_of_quality(sweep, cwd)]
    lines.append(f"  everything    {shlex.quote(where)}")
    failed = sum(job.status in ("failed", "killed") and job.has_ended for job in sweep.jobs)
    if done + (failed if sweep.search is not None else 0) < sweep.total:  # a failed trial stays one
        lines.append(f"  continue it   {next_commands.program(cwd, sweep.program)} {again.go_on(where)}")
    lines.append(f"  look at it    {next_commands.command()} sweep {shlex.quote(where)}")
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
    print(_table(sweep, Path.cwd()))
    if sought := [*of_search(sweep, Path.cwd()), *_of_quality(sweep, Path.cwd())]:
        print("", *sought, sep="\n")
    return 0


def _table(sweep: record.Sweep, cwd: Path) -> str:
    text = table(sweep.ranked, cwd, best_first=False, monitor=sweep.monitor)
    return "\n".join([text, *of_losses(sweep.jobs)])


OF_THE_LOSS = ("schedule", "objective", "weighting", "timesteps")
"""Groups with each option of which the validation loss is another quantity."""


def of_losses(jobs: Sequence[record.Job]) -> list[str]:
    """That validation losses say nothing about which job is better, where they are of several kinds."""
    apart = {key.partition(".")[0] for own in record.differing(jobs).values() for key in own}
    groups = [group for group in OF_THE_LOSS if group in apart]
    if not groups or all(job.last is None for job in jobs):
        return []
    of_each = " and ".join(groups)
    return [f"  {record.MEASURED} is another quantity with each {of_each}: compare samples, by evaluate.py"]


def of_search(sweep: record.Sweep, cwd: Path) -> list[str]:
    """The best trial of a search, what mattered, and a picture of both, where trials are complete by now."""
    if sweep.search is None:
        return []
    try:
        from ddpm.app.sweeps import search_picture, study
    except ModuleNotFoundError as error:
        return [f"  best trial    is known to Optuna, which cannot be imported ({error})"]
    try:
        found = study.left_in(sweep.directory)
        best = study.best_of(found) if found is not None else None
        if found is None or best is None:
            return []
        importance = study.importance(found)
    except Exception as error:  # whatever Optuna makes of a file that is none of its own
        return [f"  best trial    cannot be told, {study.JOURNAL} cannot be read: {error}"]
    values = next((job.overrides for job in sweep.jobs if job.number == best.number), ())
    own = " ".join(text for text in map(_typed, values) if text.partition("=")[0] in best.params)
    lines = [f"  best trial    {best.number}: {sweep.monitor} {best.value:.5g}  {own}"]
    if importance:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in importance.items())
        lines.append(f"  importance    {shares}")
    path = sweep.directory / search_picture.NAME
    try:
        search_picture.draw(found, sweep.monitor, importance, path)
    except OSError as error:
        return [*lines, f"  picture       cannot be written ({error})"]
    return [*lines, f"  picture       {shlex.quote(readable(path, cwd))}"]


def _of_quality(sweep: record.Sweep, cwd: Path) -> list[str]:
    """A picture of what samples came to by what they cost, where jobs have measured any."""
    from ddpm.app.sweeps import quality_picture

    drawn = quality_picture.drawn_jobs(sweep.jobs)
    if not drawn:
        return []
    left_out = [job for job in sweep.jobs if job not in drawn]
    path = sweep.directory / quality_picture.NAME
    try:
        quality_picture.draw(sweep.jobs, path)
    except OSError as error:
        return [f"  picture       cannot be written ({error})"]
    lines = [f"  picture       {shlex.quote(readable(path, cwd))}"]
    if left_out:
        lines.append(f"  left out      {quality_picture.named(left_out)}")
    return lines


def _typed(override: str) -> str:
    return shown([override]).lstrip("+")


def _kept(sweep: record.Sweep) -> record.Sweep:
    try:
        sweep.write()
    except WriteError as error:
        print(f"warning: {error}", file=sys.stderr)
    return sweep
