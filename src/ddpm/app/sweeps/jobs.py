"""A job of a sweep: the plain command in a process of its own, whichever launcher starts it.

What a job leaves behind in a process (rank variables, a process group, memory of a device, a logger's
settings) the next one would inherit; and whoever starts further ranks from `sys.argv`, as Lightning does,
would start the whole sweep again in each of them. A command in a fresh process does exactly what it does when
typed by hand.
"""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from ddpm.app.grammar import quoted, shown, without_hydra
from ddpm.app.left_run import RECORD, read_record
from ddpm.app.sweeps.search import Search
from ddpm.errors import UsageError

# What a surrounding launcher (torchrun, Lightning, a W&B agent) tells the one process it started: its rank,
# whom to meet, which run to log to. None of it holds for the processes that a sweep starts.
PRIVATE_VARIABLES = re.compile(
    r"RANK|LOCAL_RANK|NODE_RANK|GROUP_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_WORLD_SIZE|ROLE_.*|TORCHELASTIC_.*"
    r"|MASTER_ADDR|MASTER_PORT|PL_GLOBAL_SEED|PL_SEED_WORKERS"
    r"|WANDB_RUN_ID|WANDB_RUN_STORAGE_ID|WANDB_RUN_DIR|WANDB_RESUME|WANDB_SERVICE"
)

# Overrides that are about the sweep, or that each job gets its own value of.
SWEEP_OVERRIDES = re.compile(r"[+~]*hydra[./](mode|launcher|sweeper|run|sweep)\b")

FORWARDED_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

LABEL = "DDPM_JOB"
"""Environment variable: what sets a job apart from the others of its sweep."""

SWEEP = "DDPM_SWEEP"
"""Environment variable: the process of the sweep. A job whose sweep is gone ends, saved."""

log = logging.getLogger(__name__)


class JobFailed(CompactHydraException):
    """A job ended with another exit code than 0. It has said why itself, so Hydra adds no traceback."""


@dataclass(frozen=True)
class Chosen:
    """A job that is to be run.

    Attributes:
        number: its place in the sweep, from 0.
        overrides: its own and those that all jobs have.
        variables: of the environment, for this job alone.
    """

    number: int
    overrides: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)


class SweepJob:
    """The task function of a sweep: runs the job that Hydra has composed, and returns its objective.

    It is whole in itself, so that a launcher may call it in a worker's process or on another machine.

    Args:
        program: how the program is started, without the interpreter.
        flags: Hydra's flags that say which configuration is composed.
        typed: overrides of the sweep; what a job has beside them sets it apart.
        directory: of the sweep, where its record is kept.
        done: numbers of the jobs that an earlier start of the sweep has finished.
        search: the settings of a search; None where the jobs are known beforehand.
    """

    __name__ = "sweep_job"

    def __init__(
        self,
        program: Sequence[str],
        flags: Sequence[str],
        typed: Sequence[str],
        directory: Path,
        done: Collection[int] = (),
        search: Search | None = None,
    ):
        self.program = tuple(program)
        self.flags = tuple(flags)
        self.typed = tuple(typed)
        self.directory = directory
        self.done = frozenset(done)
        self.search = search

    def __call__(self, config: DictConfig) -> Any:
        hydra = HydraConfig.get()
        directory = Path(hydra.runtime.output_dir)
        if hydra.job.num in self.done:
            return objective(directory)
        command = [sys.executable, *self.program, *self.flags, *job_overrides(hydra, directory)]
        what = label(hydra.overrides.task, self.typed)
        with collected_signals() as received:
            code = run(command, hydra.runtime.cwd, received, label=what)
        if received:
            raise SystemExit(128 + received[0])
        if code:
            raise JobFailed(f"{what}: {outcome(code)}, see {directory}")
        return objective(directory)


def label(overrides: Sequence[str], typed: Sequence[str]) -> str:
    """What sets a job apart: its overrides beside those that all jobs of the sweep have; all of them for a
    job that is alone.
    """
    own = list(without_hydra(overrides))
    common = [_key_and_value(text) for text in typed]
    return shown([text for text in own if _key_and_value(text) not in common] or own)


def _key_and_value(override: str) -> tuple[str, Any]:
    """Of an override, however it is spelt: sweepers write True for true, and lists with blanks."""
    key, _, value = override.partition("=")
    try:
        return key.lstrip("+"), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.lstrip("+"), value


def job_overrides(hydra: Any, directory: Path) -> list[str]:
    """The job's overrides and the user's of Hydra's own settings, then those that make a process this job."""
    return [
        *hydra.overrides.task,
        *(line for line in hydra.overrides.hydra if not SWEEP_OVERRIDES.match(line)),
        "hydra.mode=RUN",
        f"hydra.run.dir={quoted(str(directory))}",
        f"hydra.sweep.dir={quoted(str(hydra.sweep.dir))}",
        f"hydra.job.num={hydra.job.num}",
        f"hydra.job.id={hydra.job.id}",
    ]


class Process:
    """A job that runs.

    In a process group of its own the job hears of Ctrl-C from us alone, and once. In the sweep's group it
    would hear of it from the terminal as well, and take the second signal for impatience. From outside the
    terminal's group it must not read.

    Args:
        command: to run.
        cwd: where.
        label: of the job.
        output: the file that takes what it says; the sweep's own output by default.
        variables: of the environment, for this job alone.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | Path,
        *,
        label: str = "",
        output: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ):
        own_group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        with ExitStack() as stack:
            if output is not None:
                output.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(output.open("ab"))
                own_group |= {"stdout": file, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(
                list(command), cwd=cwd, env={**environment(label), **(variables or {})},
                stdin=subprocess.DEVNULL, **own_group,
            )  # fmt: skip
        self._forwarded = 0
        self.code: int | None = None

    def poll(self, received: Sequence[int]) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs. Hands on what signals have
        been received since.
        """
        if self.code is None and (code := self._process.poll()) is not None:
            if code < 0 and hasattr(os, "killpg"):
                # The job had no chance to end its other ranks, which would keep their devices.
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            self.code = code
        if self.code is None:
            for signum in received[self._forwarded :]:
                self._process.send_signal(signum)  # to its first process, which knows how to stop the others
                self._forwarded += 1
        return self.code


def run(command: Sequence[str], cwd: str | Path, received: list[int], *, label: str = "") -> int:
    """Run a job to its end and return its exit code, or minus the signal that ended it.

    Args:
        command: to run.
        cwd: where.
        received: grows by the signals that are to be handed on.
        label: of the job.
    """
    process = Process(command, cwd, label=label)
    # Polling, because a signal may come in while the process is being started: no handler can hand that on.
    while (code := process.poll(received)) is None:
        time.sleep(0.1)
    return code


def end_with_sweep() -> None:
    """Of a job: be asked to end as soon as the process of the sweep that started it is gone, however that
    ended. Nobody else would tell this job, and the next start of the sweep would find its directory locked.
    """
    parent, sweep = os.getppid(), os.environ.get(SWEEP)
    if sweep != str(parent):  # no job, a rank of one, or one whose sweep has died while it was starting
        if sweep and "LOCAL_RANK" not in os.environ and not _is_alive(int(sweep)):
            raise SystemExit(128 + signal.SIGTERM)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="sweep", daemon=True).start()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def environment(label: str = "") -> dict[str, str]:
    """The sweep's environment without what was meant for the sweep's process alone."""
    kept = {name: value for name, value in os.environ.items() if not PRIVATE_VARIABLES.fullmatch(name)}
    return {**kept, LABEL: label, SWEEP: str(os.getpid())}


@contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collect the signals that ask to stop, instead of acting on them.

    Those that are ignored stay so: `nohup` and a shell's `&` ask for it. Outside a program's main thread,
    where no handler can be set, none are collected.
    """
    received: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in FORWARDED_SIGNALS}
    handlers = {signum: handler for signum, handler in handlers.items() if handler is not signal.SIG_IGN}
    try:
        for signum in handlers:
            signal.signal(signum, lambda signum, _frame: received.append(signum))
    except ValueError:  # not the main thread
        handlers = {}
    try:
        yield received
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def outcome(code: int) -> str:
    """What an exit code says."""
    if code == 0:
        return "completed"
    return f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"


def objective(directory: Path) -> Any:
    """What a run's `run.json` holds under `objective`, None if it holds none."""
    try:
        return read_record(directory).get("objective") if (directory / RECORD).exists() else None
    except UsageError as error:
        log.warning("no objective: %s", error)
        return None
