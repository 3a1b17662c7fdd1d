"""A Hydra launcher that gives every job of a sweep a process of its own, one after the other or some at once.

A job is one command, the script in plain RUN mode with its directory spelled out (see
`ddpm.app.sweeps.jobs`). The output of a job that runs alone goes where the sweep's goes, that of several at
once into a file in the directory of each; they read nothing from the terminal (to step through a job with a
debugger, run it without `-m`).
"""

import copy
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

log = logging.getLogger(__name__)

OUTPUT = "output.log"
"""In the directory of a job that runs beside others: what it says."""


@dataclass
class FreshProcessLauncherConf:
    """Settings of `hydra/launcher=fresh_process`.

    n_jobs: how many run at once; each gets its part of the cores or of the GPUs.
    stop_on_failure: start no further job once one has failed.
    """

    _target_: str = "hydra_plugins.fresh_process_launcher.FreshProcessLauncher"
    n_jobs: int = 1
    stop_on_failure: bool = False


ConfigStore.instance().store(
    group="hydra/launcher", name="fresh_process", node=FreshProcessLauncherConf, provider="ddpm"
)


class JobsFailed(CompactHydraException):
    """Some jobs failed. Hydra prints the message without a traceback: each job has printed its own."""


@dataclass
class _Job:
    """A job of this launch.

    Attributes:
        name: what it is called.
        differs: the overrides that set it apart from the others.
        number: in the sweep.
        overrides: its own.
        result: what Hydra is given back.
        directory: as it is shown.
        process: that runs it.
        place: among those at once.
        outcome: in words.
    """

    name: str
    differs: str
    number: int
    overrides: Sequence[str]
    variables: Any
    result: JobReturn = field(default_factory=JobReturn)
    directory: str = "-"
    process: Any = None  # a name that is not imported yet is nothing to a dataclass that Hydra loads
    place: int = 0
    began: float = 0.0
    seconds: float = 0.0
    outcome: str = "not started"


class FreshProcessLauncher(Launcher):
    """Runs each job in a fresh process and returns what its `run.json` calls `objective`.

    A job that fails does not disturb the others. SIGINT, SIGTERM and SIGHUP are handed on to the running
    jobs; the sweep waits for them, starts no other, and exits with 128 plus the signal's number.
    """

    def __init__(self, n_jobs: int = 1, stop_on_failure: bool = False) -> None:
        super().__init__()
        self.n_jobs = n_jobs
        self.stop_on_failure = stop_on_failure

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Failed jobs come back with status FAILED and raise `JobsFailed` when their return value is asked for,
        so a sweeper with a policy of its own (Optuna's `max_failure_rate`) keeps it. With `stop_on_failure`
        it is raised here.
        """
        from ddpm.app.sweeps.jobs import Chosen  # when used: Hydra imports every plugin at every start

        listed = (Chosen(number, own) for number, own in enumerate(job_overrides, start=initial_job_idx))
        return self.launch_each(listed, initial_job_idx + len(job_overrides))

    def launch_each(
        self, chosen: Iterator[Any], total: int, ended: Callable[..., None] | None = None
    ) -> Sequence[JobReturn]:
        """Run jobs that are chosen one by one: the next is asked for when a place for it is free.

        Args:
            chosen: the jobs, each a `ddpm.app.sweeps.jobs.Chosen`.
            total: how many of them the sweep has, those before them included.
            ended: is called when a job that was run has ended, with its number, its directory, its exit code
                (or minus the signal that ended it), and whether the sweep was asked to stop by then.

        Raises:
            JobsFailed: as `launch`.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        from ddpm.app.sweeps import jobs as processes
        from ddpm.app.sweeps import shares
        from ddpm.app.sweeps.progress import Progress

        task = self.task_function
        progress = Progress(task.directory if isinstance(task, processes.SweepJob) else None, self.n_jobs)
        gpus = shares.gpus_here() if self.n_jobs > 1 else 0
        jobs: list[_Job] = []
        running: list[_Job] = []
        failed: list[str] = []
        are_more = True
        with processes.collected_signals() as received, progress:
            while running or are_more:
                if received or (failed and self.stop_on_failure):
                    are_more = False
                while are_more and len(running) < self.n_jobs:
                    if (one := next(chosen, None)) is None:
                        are_more = False
                        break
                    job = self._named(one, total)
                    job.place = min(set(range(self.n_jobs)) - {other.place for other in running})
                    self._start(job, gpus)
                    jobs.append(job)
                    running.append(job)
                    if job.process is not None:
                        progress.started(job.number, job.overrides, job.result)
                for job in [job for job in running if self._is_over(job, received)]:
                    running.remove(job)
                    progress.ended(job.number, job.process.code if job.process else None, job.seconds)
                    if job.result.status is JobStatus.FAILED:
                        failed.append(job.name)
                    if ended is not None and job.process is not None:
                        ended(job.number, _directory(job), job.process.code, stopped=bool(received))
                progress.shown()
                if running:
                    time.sleep(0.1)
        if ended is None:  # a list, of which those that have not been started are told of, too
            jobs += [self._named(one, total) for one in chosen]
        if len(jobs) > 1 and progress.directory is None:
            completed = sum(bool(job.began) for job in jobs) - len(failed)
            log.info("%d of %d jobs completed\n%s", completed, len(jobs), _table(jobs))
        if received:
            log.info("stopped by %s", signal.Signals(received[0]).name)
            raise SystemExit(128 + received[0])
        return self._results(jobs, failed)

    def _jobs(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[_Job]:
        """The jobs of a launch."""
        from ddpm.app.sweeps.jobs import Chosen

        total = initial_job_idx + len(job_overrides)
        listed = enumerate(job_overrides, start=initial_job_idx)
        return [self._named(Chosen(number, own), total) for number, own in listed]

    def _results(self, jobs: Sequence[_Job], failed: Sequence[str]) -> list[JobReturn]:
        """What Hydra is given back; that of a job that failed raises when it is asked for."""
        results = [job.result for job in jobs if job.began]
        if failed:
            error = JobsFailed(f"{len(failed)} of {len(jobs)} jobs failed: {', '.join(failed)}")
            if self.stop_on_failure:
                raise error
            for result in results:
                if result.status is JobStatus.FAILED:
                    result.return_value = error
        return results

    def _named(self, chosen: Any, total: int) -> _Job:
        from ddpm.app.sweeps.jobs import label

        differs = label(chosen.overrides, list(self.config.hydra.overrides.task))
        name = f"[{chosen.number + 1}/{total}]"
        return _Job(name, differs or "(no overrides)", chosen.number, chosen.overrides, chosen.variables)

    def _start(self, job: _Job, gpus: int) -> None:
        """Start a job, unless an earlier start of the sweep has finished it."""
        from ddpm.app.sweeps import jobs as processes
        from ddpm.app.sweeps import shares

        command = self._command(job)
        if command is None:
            return
        log.info("%s %s -> %s", job.name, job.differs, job.directory)
        assert job.result.hydra_cfg is not None
        config: Any = OmegaConf.to_container(job.result.cfg) if job.result.cfg is not None else {}
        share = shares.share(job.place, self.n_jobs, config, gpus) if self.n_jobs > 1 else {}
        job.process = processes.Process(
            command,
            job.result.hydra_cfg.hydra.runtime.cwd,
            label=job.differs,
            output=_directory(job) / OUTPUT if self.n_jobs > 1 else None,
            variables={**share, **job.variables},
        )

    def _command(self, job: _Job) -> list[str] | None:
        """Compose a job; its command, or None where an earlier start of the sweep has finished it."""
        from ddpm.app.sweeps import jobs as processes

        job.result = self._compose(job.overrides, job.number)
        assert job.result.hydra_cfg is not None
        hydra = job.result.hydra_cfg.hydra
        directory, cwd = _directory(job), Path(hydra.runtime.cwd)
        job.directory = str(directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory)
        job.began = time.monotonic()
        if isinstance(self.task_function, processes.SweepJob) and job.number in self.task_function.done:
            log.info("%s %s: finished before", job.name, job.differs)
            return None
        return [sys.executable, *self._program(), *processes.job_overrides(hydra, directory)]

    def _is_over(self, job: _Job, received: list[int]) -> bool:
        """Whether a job has come to its end, which is then told."""
        from ddpm.app.sweeps import jobs as processes

        code = job.process.poll(received) if job.process is not None else 0
        if code is None:
            return False
        job.seconds = time.monotonic() - job.began
        job.outcome = processes.outcome(code) if job.process is not None else "finished before"
        if code == 0:
            job.result.status = JobStatus.COMPLETED
            job.result.return_value = processes.objective(_directory(job))
        else:
            job.result.status = JobStatus.FAILED
            log.error("%s %s %s: %s", job.name, job.differs, "stopped" if received else "failed", job.outcome)
        return True

    def _program(self) -> list[str]:
        """How a job is started: as our own front door says, or as this program was."""
        from ddpm.app.invocation import config_flags, program
        from ddpm.app.sweeps import jobs as processes

        if isinstance(self.task_function, processes.SweepJob):
            return [*self.task_function.program, *self.task_function.flags]
        return [*program(), *config_flags(sys.argv[1:])]

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
            hydra_cfg: Any = copy.deepcopy(instance.cfg)  # typed as HydraConf, and a DictConfig
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


def _directory(job: _Job) -> Path:
    """Of a job that has been composed."""
    assert job.result.hydra_cfg is not None
    return Path(job.result.hydra_cfg.hydra.runtime.output_dir)


def _table(jobs: Sequence[_Job]) -> str:
    """A line a job, for a program that keeps no record of its sweeps."""
    from ddpm.app.sweeps.table import aligned
    from ddpm.runtime.progress import duration

    return aligned(
        [
            ("job", "what differs", "outcome", "objective", "time", "directory"),
            *(
                (job.name, job.differs, job.outcome, _value(job.result), duration(job.seconds), job.directory)
                for job in jobs
            ),
        ]
    )


def _value(result: JobReturn) -> str:
    value = result._return_value if result.status is JobStatus.COMPLETED else None
    return f"{value:.5g}" if isinstance(value, int | float) else "-"
