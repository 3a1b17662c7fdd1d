"""A Hydra launcher that queues the jobs of a sweep in SLURM, by submitit.

A job is the same command that `hydra/launcher=fresh_process` starts here, and the sweep keeps the same record
of it. SLURM starts the command once a task, as `srun python train.py ...` does. What is named as in
hydra-submitit-launcher means the same.
"""

import logging
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from omegaconf import OmegaConf

from hydra_plugins import fresh_process_launcher as fresh

log = logging.getLogger(__name__)


@dataclass
class SlurmLauncherConf:
    """Settings of `hydra/launcher=slurm`; those that are null are left to SLURM, or follow from the trainer.

    cluster: slurm, or local: submitit's own executor on this machine, which starts all jobs at once.
    wait: for the jobs, with a table of how far they are; else the program ends as soon as all are queued.
    submitit_folder: where scripts lie, and what each task says; %j is the job's number.
    timeout_min: the limit of a job, in minutes.
    nodes, tasks_per_node, gpus_per_node: follow from trainer.num_nodes, trainer.devices and
        trainer.accelerator.
    mem_gb: a node.
    signal_delay_s: seconds before the limit at which a job is asked to save.
    array_parallelism: how many jobs run at once.
    setup: lines of shell before the program.
    additional_parameters: what else sbatch takes, by name.
    """

    _target_: str = "hydra_plugins.slurm_launcher.SlurmLauncher"
    cluster: str = "slurm"
    wait: bool = True
    submitit_folder: str = "${hydra.sweep.dir}/.submitit/%j"
    name: str = "${hydra.job.name}"
    timeout_min: int = 60
    nodes: int | None = None
    tasks_per_node: int | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    stderr_to_stdout: bool = False
    partition: str | None = None
    qos: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    account: str | None = None
    signal_delay_s: int = 120
    array_parallelism: int = 256
    setup: list[str] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)


ConfigStore.instance().store(group="hydra/launcher", name="slurm", node=SlurmLauncherConf, provider="ddpm")


class SlurmLauncher(fresh.FreshProcessLauncher):
    """Queues each job and, where it waits, returns what its `run.json` calls `objective`.

    Jobs that an earlier start of the sweep has queued and that are there yet are waited for, not queued
    again. A signal ends the waiting alone: jobs in a queue are nobody's children.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in settings.items()
        }

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Queue one job for each list of overrides.

        Failed jobs come back as from `fresh_process`.

        Raises:
            SystemExit: with 2, where the cluster refuses them.
        """
        from ddpm.errors import UsageError

        try:
            return self._launch(job_overrides, initial_job_idx)
        except UsageError as error:  # of which Hydra would print a traceback
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from error

    def _launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        from ddpm.app.sweeps import cluster, queued, record  # when used: Hydra imports all plugins at starts
        from ddpm.app.sweeps import jobs as processes
        from ddpm.app.sweeps.progress import Progress

        jobs = self._jobs(job_overrides, initial_job_idx)
        task = self.task_function
        directory = task.directory if isinstance(task, processes.SweepJob) else None
        failed: list[str] = []
        with (
            processes.collected_signals() as received,
            Progress(directory, n_jobs=max(2, len(jobs))) as progress,
        ):
            earlier = {job.number: job for job in progress.sweep.jobs} if progress.sweep else {}
            new: list[tuple[Any, list[str]]] = []
            waiting: dict[int, str] = {}
            stamps: dict[int, int | None] = {}
            for job in jobs:
                command = self._command(job)
                if command is None:
                    self._over(job, 0)
                elif (
                    (left := earlier.get(job.number))
                    and (name := left.queued)
                    and queued.is_there(name, self._directory(job), left.before)
                ):
                    waiting[job.number], stamps[job.number] = name, left.before
                    log.info("%s %s: is queued already as %s", job.name, job.differs, name)
                else:
                    new.append((job, command))
                    stamps[job.number] = record.stamp(self._directory(job))
            for place, name in queued.submit([self._queued(*one) for one in new], self.settings):
                job, _ = new[place]
                waiting[job.number] = name
                log.info("%s %s -> %s, %s", job.name, job.differs, job.directory, name)
                progress.started(
                    job.number, job.overrides, job.result, queued=name, before=stamps[job.number]
                )
            lasting = dict(waiting)
            while waiting and self.settings["wait"] and not received:
                for job in [job for job in jobs if job.number in waiting]:
                    code = queued.exit_code(waiting[job.number], self._directory(job), stamps.get(job.number))
                    if code is None:
                        continue
                    del waiting[job.number]
                    self._over(job, code)
                    progress.ended(job.number, code, job.seconds)
                    if code:
                        failed.append(job.name)
                        log.error(
                            "%s %s failed: %s, see %s", job.name, job.differs, job.outcome,
                            queued.output(lasting[job.number], self.settings),
                        )  # fmt: skip
                progress.shown()
                time.sleep(0.5)
        if waiting:
            log.info("%s\n  end them      %s", self._left(len(waiting)), cluster.end(list(waiting.values())))
        if received:
            log.info("stopped by %s", signal.Signals(received[0]).name)
            raise SystemExit(128 + received[0])
        for job in jobs:
            if job.number in waiting:  # nobody waits for what comes of it
                job.result.status, job.result.return_value = JobStatus.COMPLETED, None
        return self._results(jobs, failed)

    def _left(self, number: int) -> str:
        jobs = "1 job goes" if number == 1 else f"{number} jobs go"
        return f"{jobs} on without this program; the same command again waits for them"

    def _queued(self, job: Any, command: list[str]) -> Any:
        """What is queued for a job."""
        from ddpm.app.sweeps import jobs as processes
        from ddpm.app.sweeps import queued
        from ddpm.app.sweeps.resources import needed

        config: Any = OmegaConf.to_container(job.result.cfg, resolve=True)
        needs = needed(self.settings, config)
        if "requeue" in config and not any(
            text.lstrip("+").startswith("requeue=") for text in job.result.overrides
        ):
            command, config = [*command, "requeue=true"], {**config, "requeue": True}
        return queued.QueuedJob(
            tuple([*command, *needs.overrides]),
            job.result.hydra_cfg.hydra.runtime.cwd,
            {processes.LABEL: job.differs},
            bool(config.get("requeue")),
            needs,
        )

    def _directory(self, job: Any) -> Path:
        return Path(job.result.hydra_cfg.hydra.runtime.output_dir)

    def _over(self, job: Any, code: int) -> None:
        """A job has come to its end."""
        from ddpm.app.sweeps import jobs as processes

        job.seconds = time.monotonic() - job.began
        job.outcome = processes.outcome(code)
        job.result.status = JobStatus.FAILED if code else JobStatus.COMPLETED
        if not code:
            job.result.return_value = processes.objective(self._directory(job))
