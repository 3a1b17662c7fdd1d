"""A Hydra launcher that gives every job of a sweep a process of its own.

Hydra's own launcher calls the task function once per job inside the sweep's process. What a job leaves
behind there (rank variables, a process group, CUDA memory, a logger's settings) the next one inherits, and
whoever starts further ranks from `sys.argv`, as Lightning does, starts the whole sweep again in each of them.
Here a job is one command, the script in plain RUN mode with its directory spelled out, and so it does exactly
what that command does when typed by hand.

Jobs run one after the other. Their output goes where the sweep's goes; they read nothing from the terminal
(to step through a job with a debugger, run it without `-m`).
"""

import copy
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    filter_overrides,
    setup_globals,
)
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

# What a surrounding launcher (torchrun, Lightning, a W&B agent) tells the one process it started: its rank,
# whom to meet, which run to log to. None of it holds for the processes that a sweep starts.
PRIVATE_VARIABLES = re.compile(
    r"RANK|LOCAL_RANK|NODE_RANK|GROUP_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_WORLD_SIZE|ROLE_.*|TORCHELASTIC_.*"
    r"|MASTER_ADDR|MASTER_PORT|PL_GLOBAL_SEED|PL_SEED_WORKERS"
    r"|WANDB_RUN_ID|WANDB_RUN_STORAGE_ID|WANDB_RUN_DIR|WANDB_RESUME|WANDB_SERVICE"
)

# Overrides that are about the sweep, or that each job gets its own value of.
SWEEP_OVERRIDES = re.compile(r"[+~]*hydra[./](mode|launcher|sweeper|run|sweep)\b")

FORWARDED_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP

log = logging.getLogger(__name__)


@dataclass
class FreshProcessLauncherConf:
    """Settings of `hydra/launcher=fresh_process`.

    stop_on_failure: start no further job once one has failed.
    """

    _target_: str = "hydra_plugins.fresh_process_launcher.FreshProcessLauncher"
    stop_on_failure: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="fresh_process", node=FreshProcessLauncherConf, provider="ddpm"
)


class JobsFailed(CompactHydraException):
    """Some jobs failed. Hydra prints the message without a traceback: each job has printed its own."""


@dataclass
class Job:
    """A line of the summary."""

    label: str
    overrides: str
    outcome: str = "not started"
    directory: str = ""
    seconds: float = 0.0


class FreshProcessLauncher(Launcher):
    """Runs each job in a fresh process and returns what its `run.json` calls `objective`.

    A job that fails does not disturb the others. SIGINT, SIGTERM and SIGHUP are handed on to the running job;
    the sweep waits for it, starts no other, and exits with 128 plus the signal's number.
    """

    def __init__(self, stop_on_failure: bool = False) -> None:
        super().__init__()
        self.stop_on_failure = stop_on_failure

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Failed jobs come back with status FAILED and raise `JobsFailed` when their return value is asked for,
        so a sweeper with a policy of its own (Optuna's `max_failure_rate`) keeps it. With `stop_on_failure`
        it is raised here.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        total = initial_job_idx + len(job_overrides)
        jobs = [
            Job(f"[{position}/{total}]", " ".join(filter_overrides(overrides)) or "(no overrides)")
            for position, overrides in enumerate(job_overrides, start=initial_job_idx + 1)
        ]
        results: list[JobReturn] = []
        failed: list[str] = []
        with _collected_signals() as received:
            for number, (job, overrides) in enumerate(zip(jobs, job_overrides, strict=True), initial_job_idx):
                if received or (failed and self.stop_on_failure):
                    break
                results.append(self._run(job, overrides, number, received))
                if results[-1].status is JobStatus.FAILED:
                    failed.append(job.label)
        if len(jobs) > 1:
            completed = len(results) - len(failed)
            log.info("%d of %d jobs completed\n%s", completed, len(jobs), _table(jobs))
        if received:
            log.info("stopped by %s", signal.Signals(received[0]).name)
            raise SystemExit(128 + received[0])
        if failed:
            error = JobsFailed(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")
            if self.stop_on_failure:
                raise error
            for result in results:
                if result.status is JobStatus.FAILED:
                    result.return_value = error
        return results

    def _run(self, job: Job, overrides: Sequence[str], number: int, received: list[int]) -> JobReturn:
        """Run one job to its end, filling in its line of the summary."""
        result = self._compose(overrides, number)
        hydra = result.hydra_cfg.hydra
        directory = Path(hydra.runtime.output_dir)
        cwd = Path(hydra.runtime.cwd)
        job.directory = str(directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory)
        command = [sys.executable, *_program(), *_config_flags(), *_overrides(hydra)]
        log.info("%s %s -> %s", job.label, job.overrides, job.directory)
        start = time.monotonic()
        # In a process group of its own the job hears of Ctrl-C from us alone, and once. In the sweep's group
        # it would hear of it from the terminal as well, and take the second signal for impatience. From
        # outside the terminal's group it must not read.
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            process_group=0 if os.name == "posix" else None,
        )
        code = _wait(process, received)
        job.seconds = time.monotonic() - start
        if code == 0:
            job.outcome = "completed"
            result.status = JobStatus.COMPLETED
            result.return_value = _objective(directory)
        else:
            job.outcome = f"exit code {code}" if code > 0 else f"signal {-code} ({signal.strsignal(-code)})"
            result.status = JobStatus.FAILED
            verb = "stopped" if received else "failed"
            log.error("%s %s %s: %s", job.label, job.overrides, verb, job.outcome)
        return result

    def _compose(self, overrides: Sequence[str], number: int) -> JobReturn:
        """What Hydra's `run_job` would return for this job, but for the outcome."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        instance = HydraConfig.instance()
        outer = instance.cfg
        instance.set_config(config)  # for `${hydra:...}` in the directories
        try:
            sweep_dir = Path(config.hydra.runtime.cwd, config.hydra.sweep.dir)
            directory = sweep_dir / config.hydra.sweep.subdir
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.sweep.dir = str(sweep_dir)
                config.hydra.run.dir = config.hydra.runtime.output_dir = str(directory)
            instance.set_config(config)
            hydra_cfg = copy.deepcopy(instance.cfg)
        finally:
            instance.cfg = outer
        task_cfg = copy.deepcopy(config)
        with read_write(task_cfg), open_dict(task_cfg):
            del task_cfg["hydra"]
        return JobReturn(
            overrides=list(config.hydra.overrides.task),
            cfg=task_cfg,
            hydra_cfg=hydra_cfg,
            working_dir=str(directory) if config.hydra.job.chdir else config.hydra.runtime.cwd,
            task_name=JobRuntime.instance().get("name"),
        )


def _program() -> list[str]:
    """How the sweep's own program was started: a script, or `-m` and a module."""
    main = sys.modules["__main__"]
    if main.__spec__ is not None:
        return ["-m", main.__spec__.name]
    return [os.path.abspath(main.__file__)]


def _config_flags() -> list[str]:
    """The flags of the sweep's command line that say which configuration is composed."""
    given, _ = get_args_parser().parse_known_args(sys.argv[1:])
    flags = {
        "--config-path": given.config_path,
        "--config-name": given.config_name,
        "--config-dir": given.config_dir,
    }
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]


def _overrides(hydra: DictConfig) -> list[str]:
    """The job's overrides and the user's of Hydra's own settings, then those that make a process this job."""
    return [
        *hydra.overrides.task,
        *(line for line in hydra.overrides.hydra if not SWEEP_OVERRIDES.match(line)),
        "hydra.mode=RUN",
        f"hydra.run.dir={quoted(hydra.run.dir)}",
        f"hydra.sweep.dir={quoted(hydra.sweep.dir)}",
        f"hydra.job.num={hydra.job.num}",
        f"hydra.job.id={hydra.job.id}",
    ]


def quoted(text: str) -> str:
    """The text as a quoted string of Hydra's override grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def _environment() -> dict[str, str]:
    """The sweep's environment without what was meant for the sweep's process alone."""
    return {name: value for name, value in os.environ.items() if not PRIVATE_VARIABLES.fullmatch(name)}


@contextmanager
def _collected_signals() -> Iterator[list[int]]:
    """Collect the signals that ask the sweep to stop, instead of acting on them.

    Those that are ignored stay so: `nohup` and a shell's `&` ask for it.
    """
    received: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in FORWARDED_SIGNALS}
    handlers = {signum: handler for signum, handler in handlers.items() if handler is not signal.SIG_IGN}
    for signum in handlers:
        signal.signal(signum, lambda signum, _frame: received.append(signum))
    try:
        yield received
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _wait(process: subprocess.Popen[bytes], received: list[int]) -> int:
    """Wait for the job's end, handing on each signal once as it comes in, and return its exit code."""
    forwarded = 0
    # Polling, because a signal may come in while the process is being started: no handler can hand that on.
    while (code := process.poll()) is None:
        for signum in received[forwarded:]:
            process.send_signal(signum)  # to its first process only, which knows how to stop the others
            forwarded += 1
        time.sleep(0.1)
    if code < 0:
        # The job had no chance to end its other ranks, which would keep their devices from the next job.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return code


def _objective(directory: Path) -> Any:
    """What the job's `run.json` holds under `objective`, None if it holds none."""
    try:
        return json.loads((directory / "run.json").read_text(encoding="utf-8")).get("objective")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        log.warning("no objective: %s cannot be read (%s)", directory / "run.json", error)
        return None


def _table(jobs: Sequence[Job]) -> str:
    rows = [("job", "overrides", "outcome", "directory", "time")]
    for job in jobs:
        elapsed = str(timedelta(seconds=round(job.seconds)))
        rows.append((job.label, job.overrides, job.outcome, job.directory or "-", elapsed))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
