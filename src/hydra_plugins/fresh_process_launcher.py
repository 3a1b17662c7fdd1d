"""A Hydra launcher that gives every job of a sweep a process of its own, one after the other.

A job is one command, the script in plain RUN mode with its directory spelled out (see `ddpm.app.jobs`). The
jobs' output goes where the sweep's goes; they read nothing from the terminal (to step through a job with a
debugger, run it without `-m`).
"""

import copy
import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, setup_globals
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

if TYPE_CHECKING:
    from ddpm.app.sweep_table import Row

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
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one job for each list of overrides.

        Failed jobs come back with status FAILED and raise `JobsFailed` when their return value is asked for,
        so a sweeper with a policy of its own (Optuna's `max_failure_rate`) keeps it. With `stop_on_failure`
        it is raised here.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        from ddpm.app import jobs as processes  # when it is used: Hydra imports every plugin at every start
        from ddpm.app.sweep_table import Row, table

        total = initial_job_idx + len(job_overrides)
        typed = list(self.config.hydra.overrides.task)
        jobs = [
            Row(f"[{position}/{total}]", processes.label(overrides, typed) or "(no overrides)")
            for position, overrides in enumerate(job_overrides, start=initial_job_idx + 1)
        ]
        results: list[JobReturn] = []
        failed: list[str] = []
        with processes.collected_signals() as received:
            for number, (job, overrides) in enumerate(zip(jobs, job_overrides, strict=True), initial_job_idx):
                if received or (failed and self.stop_on_failure):
                    break
                results.append(self._run(job, overrides, number, received))
                if results[-1].status is JobStatus.FAILED:
                    failed.append(job.job)
        if len(jobs) > 1:
            completed = len(results) - len(failed)
            log.info("%d of %d jobs completed\n%s", completed, len(jobs), table(jobs))
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

    def _run(self, job: "Row", overrides: Sequence[str], number: int, received: list[int]) -> JobReturn:
        """Run one job to its end, filling in its line of the summary."""
        from ddpm.app import jobs as processes

        result = self._compose(overrides, number)
        assert result.hydra_cfg is not None
        hydra = result.hydra_cfg.hydra
        directory = Path(hydra.runtime.output_dir)
        cwd = Path(hydra.runtime.cwd)
        job.directory = str(directory.relative_to(cwd) if directory.is_relative_to(cwd) else directory)
        command = [
            sys.executable, *self._program(), *processes.job_overrides(hydra, directory)
        ]  # fmt: skip
        log.info("%s %s -> %s", job.job, job.differs, job.directory)
        start = time.monotonic()
        code = processes.run(command, cwd, received, label=job.differs)
        job.seconds = time.monotonic() - start
        job.outcome = processes.outcome(code)
        if code == 0:
            result.status = JobStatus.COMPLETED
            result.return_value = job.objective = processes.objective(directory)
        else:
            result.status = JobStatus.FAILED
            verb = "stopped" if received else "failed"
            log.error("%s %s %s: %s", job.job, job.differs, verb, job.outcome)
        return result

    def _program(self) -> list[str]:
        """How a job is started: as our own front door says, or as this program was."""
        from ddpm.app import jobs as processes
        from ddpm.app.invocation import config_flags, program

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
