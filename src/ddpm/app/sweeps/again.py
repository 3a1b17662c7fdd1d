"""A sweep's directory: a new one, or that of the same command, which goes on."""

import copy
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict, read_write

from ddpm.app import arguments as words
from ddpm.app import lock, outside, run_directory
from ddpm.app.arguments import Arguments
from ddpm.app.compose import Composed
from ddpm.app.grammar import absolute, quoted, without_hydra
from ddpm.app.left_run import LeftRun, left_in
from ddpm.app.lock import Lock
from ddpm.app.request import FREE, PLACES
from ddpm.app.sweeps import record, search
from ddpm.app.sweeps.record import Job, Sweep
from ddpm.errors import UsageError

KEY = "hydra.sweep.dir"


@dataclass(frozen=True)
class Entered:
    """The directory of a sweep, ready for its jobs.

    Attributes:
        sweep: with its jobs, as they are.
        lock: on the directory.
        done: numbers of the jobs that have nothing left to do.
        undo: removes what was made, where nothing has been started.
    """

    sweep: Sweep
    lock: Lock
    done: tuple[int, ...]
    undo: Callable[[], None]


def enter(
    begun: Sweep,
    *,
    named: bool,
    planned: Sequence[Sequence[str]],
    found: Sequence[Composed],
    check: Callable[[Sweep], None] = lambda left: None,
) -> Entered:
    """Make the directory of a sweep, or go into the one that the user or a job of a cluster named.

    Args:
        begun: the sweep in the directory that the configuration says, without jobs.
        named: whether the user typed the directory.
        planned: the overrides of each job, where Hydra's own sweeper runs through them.
        found: the configuration of each, checked.
        check: refuses what an earlier start of the sweep has left, where this command is another.

    Raises:
        UsageError: where somebody writes there, or another sweep lies there.
    """
    if named:
        begun.directory.mkdir(parents=True, exist_ok=True)
        return _hold(begun, planned, found, check)
    job = run_directory.lone_job()
    if job is None:
        return _hold(replace(begun, directory=run_directory.claim(begun.directory)), planned, found, check)
    for candidate in run_directory.numbered(begun.directory.with_name(job)):
        candidate.mkdir(parents=True, exist_ok=True)
        try:
            return _hold(replace(begun, directory=candidate), planned, found, check)
        except lock.HeldError:
            raise
        except UsageError:  # another sweep of the job
            continue
    raise AssertionError("there is always another number")


def _hold(
    begun: Sweep,
    planned: Sequence[Sequence[str]],
    found: Sequence[Composed],
    check: Callable[[Sweep], None],
) -> Entered:
    directory = begun.directory
    held = lock.take(directory, KEY)
    try:
        left = record.read(directory) if (directory / record.NAME).exists() else None
        if left is not None and left.program != begun.program:
            raise UsageError(
                f"{KEY}={directory}: holds a sweep of {left.program}.py; choose another directory"
            )
        if left is not None:
            search.check_same(directory, left.search, begun.search, KEY)
            check(left)
        if left is not None and planned and len(left.jobs) != len(planned):
            raise UsageError(
                f"{KEY}={directory}: holds a sweep of {len(left.jobs)} jobs, and this command has "
                f"{len(planned)}; choose another directory"
            )
        jobs, done = [], []
        for number, (overrides, job) in enumerate(zip(planned, found, strict=True)):
            where = _directory_of(job, number, directory)
            own = without_hydra(overrides)
            earlier = left.jobs[number] if left is not None else None
            if _has_nothing_left(begun.program, where, job, earlier, own):
                done.append(number)
            steps = (job.values.get("trainer") or {}).get("max_steps")
            jobs.append(
                Job(
                    number,
                    where,
                    own,
                    exit_code=earlier.exit_code if earlier is not None else None,
                    max_steps=steps if isinstance(steps, int) else None,
                    seconds=earlier.seconds if earlier is not None else 0.0,
                    queued=earlier.queued if earlier is not None else None,
                    before=earlier.before if earlier is not None else None,
                )
            )
        started = left.started if left is not None else begun.started
        known = jobs if planned or left is None else left.jobs
        sweep = replace(begun, started=started, jobs=tuple(known)).looked_at()
        sweep.write()
    except BaseException:
        held.release()
        raise
    return Entered(sweep, held, tuple(done), lambda: _undo(directory))


def has_begun(directory: Path) -> bool:
    """Whether a job of a sweep has been started, or queued."""
    if any(path.is_dir() for path in directory.iterdir()):
        return True
    return any(job.queued is not None for job in record.read(directory).jobs)


def _undo(directory: Path) -> None:
    if has_begun(directory):
        return
    for name in (record.NAME, record.TABLE, lock.NAME):
        (directory / name).unlink(missing_ok=True)
    if not any(directory.iterdir()):
        directory.rmdir()


def _has_nothing_left(
    program: str, directory: Path, job: Composed, earlier: Job | None, overrides: Sequence[str]
) -> bool:
    """Whether a job is done that an earlier start of its sweep has run.

    Raises:
        UsageError: where its directory holds another.
    """
    if program != "train":
        if earlier is None or earlier.exit_code is None:
            return False
        if _asked(earlier.overrides) != _asked(overrides):
            raise UsageError(f"{KEY}={directory}: holds another job; choose another directory for the sweep")
        return earlier.exit_code == 0 and record.has_results(directory)
    left: LeftRun | None = left_in(directory, KEY) if directory.is_dir() else None
    if left is None:
        return False
    if job.values["resume"] == "never":
        raise UsageError(
            f"{KEY}={directory}: holds a run already, and resume=never; choose another directory, or leave "
            "resume=never out to go on with the sweep"
        )
    left.refuse_another(job.values, KEY)
    return left.has_nothing_left(job.values)


def _asked(overrides: Sequence[str]) -> set[str]:
    """What a job is asked for, without where and how it is done."""
    free = tuple(key for key in FREE if key not in PLACES)
    keys = {word: words.key_of(word) for word in overrides}
    return {
        word for word, key in keys.items() if not any(key == one or key.startswith(f"{one}.") for one in free)
    }


def _directory_of(job: Composed, number: int, directory: Path) -> Path:
    """Where a job of a sweep writes: what `hydra.sweep.subdir` says."""
    config = copy.deepcopy(job.hydra)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.num, config.hydra.job.id = number, str(number)
        config.hydra.sweep.dir = str(directory)
    instance = HydraConfig.instance()
    outer = instance.cfg
    instance.set_config(config)  # for `${hydra:...}`
    try:
        return directory / str(config.hydra.sweep.subdir)
    finally:
        instance.cfg = outer


def of_a_sweep(arguments: Arguments, program: str) -> Arguments:
    """The command line of a sweep that is to go on, where `-m ckpt=` names one; else the one that was typed.

    What is typed beside it comes behind its own words. Nothing is admitted by its own words: packages, and
    what is written outside of its directory, are typed again.

    Raises:
        UsageError: where it cannot go on.
    """
    ckpt = arguments.value("ckpt")
    if not arguments.multirun or not isinstance(ckpt, str):
        return arguments
    directory = absolute(ckpt)
    if not os.path.lexists(directory / record.NAME):
        return arguments
    sweep = record.read(directory)
    if sweep.program != program:
        raise UsageError(f"ckpt={ckpt}: is a sweep of {sweep.program}.py; name a run of it, ckpt={ckpt}/0")
    typed = [word for word in arguments.typed if words.key_of(word) != "ckpt"]
    keys = {words.key_of(word) for word in typed}
    own = [word for word in sweep.typed if words.key_of(word) not in {*keys, KEY, "allow_targets"}]
    read = words.read(["-m", *own], program)
    if leading := outside.typed_again(read.overrides, directory):
        raise UsageError(
            f"ckpt={ckpt}: would write outside of the sweep's directory; if that is meant, type it again: "
            f"{' '.join(leading)}"
        )
    if not Path(sweep.cwd).is_dir():
        raise UsageError(f"ckpt={ckpt}: was started in {sweep.cwd}, which is gone; make it again")
    os.chdir(sweep.cwd)  # paths are as they were typed there
    flags = [flag for flag in (*sweep.flags, *arguments.flags) if flag != "--multirun"]
    return words.read(["-m", *flags, *own, *typed, f"{KEY}={quoted(str(directory))}"], program)


def go_on(directory: str) -> str:
    """The words that go on with a sweep."""
    return f"-m ckpt={shlex.quote(directory)}"
