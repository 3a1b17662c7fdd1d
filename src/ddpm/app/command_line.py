"""A program from its command line to its exit code: mistakes first, then the work.

Every mistake that the command line holds is told in one message, with exit code 2, before anything heavy is
imported and before any directory is made; for a sweep before its first job. `HYDRA_FULL_ERROR=1` shows the
traceback instead.
"""

import importlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from ddpm.app import arguments as words
from ddpm.app import (
    check,
    gpus_there,
    hydra_callbacks,
    hydra_part,
    invocation,
    left_out,
    next_commands,
    outside,
    refusal,
    requeue,
    run_directory,
    streams,
)
from ddpm.app.arguments import Arguments
from ddpm.app.compose import Composed, claimed, composed, with_recipe
from ddpm.app.grammar import absolute, quoted, shown
from ddpm.app.hydra_errors import told_in_one_message
from ddpm.app.left_run import LeftRun
from ddpm.app.run_configuration import primary
from ddpm.app.run_directory import Place
from ddpm.app.sweeps import again, jobs, record, resources, rows, search, shares, show
from ddpm.errors import UsageError
from ddpm.options import CONF
from ddpm.runtime.writing import WriteError

SLURM = "hydra_plugins.slurm_launcher.SlurmLauncher"

CHOOSING = ("--config-name=", "--config-dir=")
"""Flags that say which configuration is composed."""

Job = Callable[[], int]
"""Does the work; returns the exit code."""

Prepare = Callable[[dict[str, Any], Place], Job]
"""(checked configuration, where to write) -> job. Raises UsageError for what only building can tell;
writes nothing.
"""


def run(program: str, prepare: Prepare | None = None) -> NoReturn:
    """Be a program: read the command line, do what it says, exit.

    Args:
        program: train, sample, evaluate, inspect or encode; also the name of its configuration in `conf/`,
            and of the module here whose `prepare` builds the job.
        prepare: another that builds it.
    """
    streams.make_unfailing()
    command = invocation.program()
    typed = sys.argv[len(command) if command[0] != "-m" else len(command) - 1 :]
    try:
        arguments = words.read(typed, program)
        if arguments.informs:
            if arguments.job_shown and _show_job(arguments, program):
                sys.exit(0)
            run_directory.register_resolver()
            _hand_to_hydra(_nothing, arguments, program)
            sys.exit(0)
        arguments = again.of_a_sweep(arguments, program)
        found, multirun = checked(arguments, program)
        for job in found:
            check.check_paths(job.values)
        if multirun:
            sys.exit(_sweep(arguments, program, command, found))
        requeue.check(found[0].values)
        sys.exit(_once(prepare or _prepare_of(program), found[0], arguments, program))
    except UsageError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if run_directory.is_leader():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # Ctrl-C where nothing else hears it: no traceback of where that was
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(128 + signal.SIGINT)
    except WriteError as error:  # what was asked for is done, and could not be written
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _prepare_of(program: str) -> Prepare:
    """The program's own; what it imports takes seconds, after the checks that do without."""

    def prepare(config: dict[str, Any], place: Place) -> Job:
        work: Job = importlib.import_module(f"ddpm.app.{program}").prepare(config, place)
        return work

    return prepare


def checked(arguments: Arguments, program: str) -> tuple[list[Composed], bool]:
    """The checked configuration of every job of a command line, and whether it is a sweep.

    Raises:
        UsageError: for the first mistake.
    """
    if not CONF.is_dir():
        raise UsageError(f"{CONF}: the configuration groups are not there; install the package anew")
    swept = [override for override in arguments.parsed if override.is_sweep_override()]
    first = composed(arguments, program, arguments.first_of_each)
    hydra_part.check(first.hydra, arguments.allowed)
    multirun = arguments.multirun or first.hydra.hydra.mode == RunMode.MULTIRUN
    if not multirun:
        search.check_mode(first)
        if swept:
            raise UsageError(
                f"{shown([swept[0].input_line or ''])}: several values are a sweep, which needs -m; "
                "a list is written [a,b], text with a comma KEY='\"a,b\"'"
            )
        return [first], False
    if run_directory.number_of_processes() > 1:
        raise UsageError(
            "-m: a sweep is started by one process; leave torchrun or srun out, its jobs start theirs"
        )
    sought = search.read(first, arguments, program) if search.is_search(first) else None
    if sought is not None:
        planned: Sequence[tuple[str, ...]] = sought.samples
    else:
        arguments = _with_params(arguments, program, first)
        planned = _jobs(arguments, first, program)
    found = [composed(arguments, program, job) for job in planned]
    if sought is not None:
        search.check_monitor(sought, [job.values for job in found])
        for job in found:
            check.check_foreign_targets(job.values)
    if any(job.values.get("preflight") for job in found):
        raise UsageError("preflight=true: looks at one run; leave -m out")
    for job in found:
        _check_shares(job.values)
    return found, True


def _with_params(arguments: Arguments, program: str, first: Composed) -> Arguments:
    """The command line with what a yaml says under `hydra.sweeper.params`, where Hydra's own sweeper would
    run through it: read as if typed, and overruled by what is.
    """
    params = OmegaConf.to_container(first.hydra.hydra.sweeper.get("params") or OmegaConf.create({}))
    assert isinstance(params, dict)
    if not params or not _is_basic(first):
        return arguments
    typed = {override.key_or_group for override in arguments.parsed}
    given = [f"{key!s}={value}" for key, value in params.items() if str(key).lstrip("+~") not in typed]
    read = words.read(["-m", *given], program, arguments.config_dir)
    overrides = (*read.overrides, *arguments.overrides, "hydra.sweeper.params=null")
    return replace(arguments, overrides=overrides, multirun=True)


def _jobs(arguments: Arguments, first: Composed, program: str) -> list[tuple[str, ...]]:
    """The overrides of each job, where Hydra's own sweeper or rows choose them; what another one will choose
    is checked when it has chosen.
    """
    if not _is_basic(first):
        return [arguments.first_of_each]
    return rows.with_rows(arguments.jobs(), rows.rows_of(first, arguments, program))


def _is_basic(first: Composed) -> bool:
    sweeper = str(first.hydra.hydra.sweeper.get("_target_", ""))
    return sweeper.endswith((".BasicSweeper", ".RowsSweeper"))


def _check_shares(config: dict[str, Any]) -> None:
    """Refuse a global batch that the devices of a later job could not share, as far as it can be known."""
    trainer, data = config.get("trainer") or {}, config.get("data") or {}
    devices, batch = shares.devices_of(config), data.get("batch_size")
    accumulated = trainer.get("accumulate_grad_batches", 1)
    parts = (devices or 1) * trainer.get("num_nodes", 1) * accumulated
    if isinstance(batch, int) and batch > 0 and batch % parts:
        below = batch // parts * parts
        nearest = " or ".join(str(size) for size in (below, below + parts) if size)
        among = f"trainer.devices={trainer['devices']}" if devices is not None else ""
        shared = f"trainer.accumulate_grad_batches={accumulated}" if accumulated > 1 else ""
        raise UsageError(
            f"{' '.join(filter(None, (among, shared)))}: does not divide data.batch_size={batch}, the global "
            f"batch; use data.batch_size={nearest}"
        )


def _show_job(arguments: Arguments, program: str) -> bool:
    """Print the configuration that would run, of a sweep that of its first job: what Hydra composes, or a
    continued run's own, without what is left out. False where values are missing, which Hydra shows as such.

    Raises:
        UsageError: for the first mistake.
    """
    try:
        values: Any = composed(arguments, program, arguments.first_of_each).values
    except check.MissingValueError:
        return False
    for part in (arguments.package or "").split("."):
        if part and part != "_global_":
            if not isinstance(values, dict) or part not in values:
                raise UsageError(f"--package {arguments.package}: there is no such part of the configuration")
            values = values[part]
    print(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), end="")
    return True


def _nothing(_: Any) -> None:
    """What Hydra is given to run where it only informs."""


def _hand_to_hydra(task: Callable[[Any], Any], arguments: Arguments, program: str) -> None:
    """Let Hydra do what the flags say. It reads `sys.argv` and nothing else, so that our reading of the
    overrides goes there; what was typed returns, for whoever starts further processes from it.
    The configuration that a run left is ours alone to read: it may be a stranger's, and Hydra would build
    what it names. Nor is anything else of its directory found.
    """
    typed = sys.argv
    with primary(arguments, program) as (directories, name):
        flags = tuple(flag for flag in arguments.flags if not flag.startswith(CHOOSING))
        flags += tuple(f"--config-dir={directory}" for directory in directories if directory != CONF)
        sys.argv = [typed[0], *flags, *arguments.overrides]
        try:
            hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(task)()
        finally:
            sys.argv = typed


def _sweep(arguments: Arguments, program: str, command: list[str], found: Sequence[Composed]) -> int:
    """Run a sweep by Hydra's sweeper and launcher, in a directory that no other sweep has, or go on with the
    one that is there.
    """
    first = found[0]
    typed = arguments.typed
    arguments = _with_params(arguments, program, first)
    planned = _jobs(arguments, first, program) if _is_basic(first) else []
    sought = search.read(first, arguments, program) if search.is_search(first) else None
    if sought is not None:
        arguments = replace(arguments, overrides=sought.common)
    if listed := rows.rows_of(first, arguments, program):  # as they were read, not as they were written
        arguments = replace(arguments, overrides=(*arguments.overrides, rows.override(listed)))
    arguments = replace(arguments, overrides=tuple(with_recipe(arguments, arguments.overrides)))
    _check_launcher(first, found)
    named = any(text.lstrip("+").startswith("hydra.sweep.dir=") for text in arguments.overrides)
    place = absolute(first.hydra.hydra.sweep.dir)
    flags = tuple(flag for flag in arguments.flags if flag.startswith(CHOOSING))
    begun = record.Sweep(
        place, program, typed, flags, str(Path.cwd()), record.now(),
        search=sought.kept if sought is not None else None,
    )  # fmt: skip
    with ExitStack() as at_the_end:
        with _told_of_the_directory("hydra.sweep.dir", place):
            _check_room(place)
            entered = again.enter(
                begun,
                named=named,
                planned=planned,
                found=found if planned else [],
                check=lambda left: _check_search(left, sought, arguments, program),
            )
        at_the_end.callback(entered.lock.release)
        directory = entered.sweep.directory
        at_the_end.callback(entered.undo)
        overrides = (*arguments.overrides, f"hydra.sweep.dir={quoted(str(directory))}")
        arguments = replace(arguments, overrides=overrides)
        if sought is not None:
            search.wait_for_jobs([job.directory for job in entered.sweep.jobs])
            importlib.import_module("ddpm.app.sweeps.study").check(directory, sought)
        job = jobs.SweepJob(command, flags, arguments.overrides, directory, entered.done, sought)
        try:
            _hand_to_hydra(job, arguments, program)
        finally:
            if again.has_begun(directory):
                print(show.at_the_end(directory, Path.cwd()), flush=True)
    return 0


def _check_search(
    left: record.Sweep, sought: search.Search | None, arguments: Arguments, program: str
) -> None:
    if sought is not None:
        search.check_left(left.jobs, sought, arguments, program, again.KEY)


def _check_launcher(first: Composed, found: Sequence[Composed]) -> None:
    """Refuse GPUs that are not there, and what our launchers cannot start: more jobs at once than the machine
    has devices for, jobs that no queue takes.

    Raises:
        UsageError: naming the key.
    """
    launcher = first.hydra.hydra.launcher
    if launcher.get("_target_") == SLURM:
        settings: Any = OmegaConf.to_container(launcher)
        resources.check(settings, [job.values for job in found], is_basic=_is_basic(first))
        if settings["cluster"] == resources.SLURM:  # whose GPUs are elsewhere
            return
    for job in found:
        if (trainer := job.values.get("trainer") or {}).get("accelerator") in gpus_there.ON_GPUS:
            gpus_there.check(trainer)
    if not str(launcher.get("_target_")).endswith(".FreshProcessLauncher"):
        return
    n_jobs = launcher.get("n_jobs")
    if not isinstance(n_jobs, int):
        raise UsageError(f"hydra.launcher.n_jobs={n_jobs}: must be a whole number")
    configs = [job.values for job in found]
    needs = n_jobs > 1 and not all(map(shares.on_cpu, configs))
    shares.check(n_jobs, configs, shares.gpus_here() if needs else 0)


def _check_room(directory: Path) -> None:
    """Write where a sweep will, and leave nothing: Hydra, which writes there first, fails with a traceback.

    Raises:
        OSError: where nothing can be written.
    """
    there = next(path for path in (directory, *directory.parents) if path.exists())
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(bytes(2**16))
        file.flush()


def _once(prepare: Prepare, job: Composed, arguments: Arguments, program: str) -> int:
    """Run one job here."""
    jobs.end_with_sweep()
    place = _place(job, tuple(sys.argv))
    # before anything is built: loggers read them, and torch looks for devices
    os.environ.update({str(name): str(value) for name, value in job.hydra.hydra.job.env_set.items()})
    if job.values.get("preflight"):
        check.check_foreign_targets(job.values)
        HydraConfig.instance().set_config(job.hydra)
        return prepare(job.values, place)()
    named = any(text.lstrip("+").startswith(("hydra.run.dir=", "out=")) for text in arguments.overrides)
    typed = [text.partition("=")[0].lstrip("+~") for text in arguments.overrides]
    with _told_of_the_directory("out" if "out" in job.values else "hydra.run.dir", place.directory):
        absent = [path for path in (place.directory, *place.directory.parents) if not path.exists()]
    with ExitStack() as at_the_end:
        try:
            left_out.leave_out_foreign(job.values, typed)
            with _told_of_the_directory("out" if "out" in job.values else "hydra.run.dir", place.directory):
                if program == "train":
                    outside.check_directory(place.directory)
                try:
                    entered = run_directory.enter(place.directory, job.values, named=named)
                except Exception:  # of the leader alone
                    refusal.tell_ranks()
                    raise
            place = replace(place, **vars(entered))
            if place.lock is not None:
                at_the_end.callback(place.lock.release)
            if place.left is not None and place.left.has_nothing_left(job.values):
                if run_directory.is_leader():
                    print(_complete(place, place.left), flush=True)
                return 0
            check.check_foreign_targets(job.values)
            HydraConfig.instance().set_config(claimed(job.hydra, place.directory))
            work = prepare(job.values, place)
        except BaseException:
            at_the_end.close()
            for path in (place.directory, *absent):  # undo what was made, and nothing else
                if path in absent or not named:
                    with suppress(OSError):
                        path.rmdir()
            raise
        at_the_end.callback(os.chdir, Path.cwd())
        if job.hydra.hydra.job.chdir:
            os.chdir(place.directory)
        if place.sweep is None and run_directory.is_leader():
            return hydra_callbacks.called_around(work, job.hydra, program)
        return work()


def _complete(place: Place, left: LeftRun) -> str:
    """What a command is told whose run is complete."""
    step, why = left.record.get("step", 0), left.record.get("why")
    because = f" ({why})" if why else ""
    go_on = next_commands.train_on(place, step, left.config["lr_schedule"])
    return (
        f"{next_commands.readable(place.directory, place.cwd)}: finished at step {step} already{because}; "
        f"train on with {go_on}"
    )


@contextmanager
def _told_of_the_directory(key: str, directory: Path) -> Iterator[None]:
    """What the file system says of the directory that a key names, in one message."""
    try:
        yield
    except OSError as error:
        there = next((path for path in directory.parents if os.path.lexists(path)), directory)
        there = directory if os.path.lexists(directory) else there
        said = f"{there} is no directory" if not there.is_dir() else f"{there}: {error.strerror or error}"
        raise UsageError(f"{key}={directory}: cannot be used, {said}; choose another directory") from error


def _place(job: Composed, typed: tuple[str, ...]) -> Place:
    """Where a job writes, and what it is part of."""
    with told_in_one_message():
        config = job.hydra.hydra
        in_sweep = not OmegaConf.is_missing(config.job, "num")
        sweep = Path(config.sweep.dir).name if in_sweep else None
        if not isinstance(config.run.dir, str):
            raise UsageError("hydra.run.dir: must be the path of a directory")
        label = os.environ.get(jobs.LABEL) or None
        directory = absolute(config.run.dir)
        typed_directory = any(
            text.lstrip("+").startswith("hydra.run.dir=") for text in config.overrides.hydra
        )
        if job.origin is not None and not typed_directory:
            directory = run_directory.again(job.origin.parent)
        choices = {str(group): str(option) for group, option in config.runtime.choices.items() if option}
        return Place(
            directory,
            sweep=sweep,
            label=label if in_sweep else None,
            command=typed,
            cwd=Path.cwd(),
            choices={group: option for group, option in choices.items() if not group.startswith("hydra/")},
            overrides=tuple(str(text) for text in config.overrides.task),
        )
