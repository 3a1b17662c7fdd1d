"""A job of a sweep in a cluster's queue: how it gets there, what its tasks run, and how it ended.

Whoever sends signals (SLURM before a job's time is over, or when another takes its place), the run itself
hears them, saves and has the job queued again, as `srun python train.py ... requeue=true` does: ranks agree
on the step that is saved, which no handler of submitit's could know. So submitit's own handlers end with the
few seconds in which it starts the program.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddpm.app.left_run import RECORD, read_record
from ddpm.app.sweeps import cluster
from ddpm.app.sweeps import jobs as processes
from ddpm.app.sweeps.record import has_results, stamp
from ddpm.app.sweeps.resources import Needs
from ddpm.errors import UsageError

SHARED = ("nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min", "name")
SHARED_TOO = ("stderr_to_stdout",)
"""Settings that submitit knows for every cluster; others are SLURM's."""

OURS = ("cluster", "wait", "submitit_folder")

STARTED_AGAIN = 144
"""The exit code by which a task asks submitit's local executor to be started again."""

OUTPUT = "local.log"
"""Beside the folders of jobs: what submitit's local executor says, and what its `setup` does."""

WAITING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
"""Signals by which SLURM has a job end."""

GRACE = 5.0
"""Seconds in which the files of a job that has left the queue come to be seen here."""

LEAVES = 120.0
"""Seconds in which a job whose run is over leaves the queue."""

_gone: dict[str, float] = {}


@dataclass(frozen=True)
class QueuedJob:
    """What every task of a job calls.

    Attributes:
        command: whole.
        cwd: where it runs.
        environment: variables beside those that the task has.
        requeues: whether it is started again where a signal has ended it.
        needs: of the cluster.
    """

    command: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str]
    requeues: bool
    needs: Needs

    def __call__(self) -> None:
        os.environ.update(self.environment)
        os.chdir(self.cwd)
        if os.environ.get("SUBMITIT_EXECUTOR") == cluster.LOCAL:
            sys.exit(self._run_here())
        if self.requeues:  # a signal waits until the program can hear it
            signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
        os.execv(self.command[0], self.command)

    def checkpoint(self) -> Any:
        """Of a task that is signalled before the program has begun: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _run_here(self) -> int:
        """Stand for srun and scontrol: tell the task its place, hand signals on, ask to be started again."""
        received: list[int] = []
        for signum in WAITING:
            signal.signal(signum, lambda signum, _frame: received.append(signum))
        process = processes.Process(
            self.command, self.cwd, label=self.environment.get(processes.LABEL, ""), variables=_as_in_slurm()
        )
        while (code := process.poll(received)) is None:
            time.sleep(0.1)
        asked_to_end = received and code in (128 + received[0], -received[0])  # saved; or not begun
        if self.requeues and asked_to_end and received[0] != signal.SIGTERM:  # by which a person ends it
            return STARTED_AGAIN
        return code if code >= 0 else 128 - code


def _as_in_slurm() -> dict[str, str]:
    """What srun tells a task, of one that submitit's local executor has started."""
    told, tasks = os.environ, os.environ["SUBMITIT_LOCAL_NTASKS"]
    return {
        "SLURM_JOB_ID": told["SUBMITIT_LOCAL_JOB_ID"],
        "SLURM_JOB_NAME": "submitit",
        "SLURM_STEP_ID": "0",
        "SLURM_NTASKS": tasks,
        "SLURM_NTASKS_PER_NODE": tasks,
        "SLURM_NNODES": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "localhost",
        "SLURM_PROCID": told["SUBMITIT_LOCAL_GLOBALID"],
        "SLURM_LOCALID": told["SUBMITIT_LOCAL_LOCALID"],
    }


def submit(jobs: Sequence[QueuedJob], settings: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Queue jobs; those that need the same are one array.

    Args:
        jobs: in order.
        settings: of the launcher.

    Yields:
        Which of them is queued, and how it is called.

    Raises:
        UsageError: with what the cluster says.
    """
    import submitit

    for needs in dict.fromkeys(job.needs for job in jobs):
        alike = [number for number, job in enumerate(jobs) if job.needs == needs]
        try:
            with _undisturbed(settings):
                executor = _executor(settings, needs)
                queued = executor.map_array(QueuedJob.__call__, [jobs[number] for number in alike])
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
            raise UsageError(f"hydra/launcher=slurm: the jobs are not queued, {_reason(error)}") from error
        for number, one in zip(alike, queued, strict=True):
            yield number, cluster.name_of(settings["cluster"], one.job_id)
    cluster.forget()


def _executor(settings: Mapping[str, Any], needs: Needs) -> Any:
    import submitit

    asked = {name: value for name, value in settings.items() if value is not None and name not in OURS}
    asked |= {"nodes": needs.nodes, "tasks_per_node": needs.tasks_per_node}
    if needs.gpus_per_node is not None:
        asked["gpus_per_node"] = needs.gpus_per_node
    folder = settings["submitit_folder"]
    executor: Any
    if settings["cluster"] == cluster.LOCAL:
        executor = submitit.LocalExecutor(folder)
        known = ("timeout_min", "signal_delay_s", "setup", "gpus_per_node", *SHARED_TOO)
        here = {name: asked[name] for name in known if name in asked}
        executor.update_parameters(tasks_per_node=needs.tasks_per_node, **here)
        return executor
    asked["additional_parameters"] = {"requeue": True, **asked.get("additional_parameters", {})}
    executor = submitit.AutoExecutor(folder, cluster=cluster.SLURM)
    shared = (*SHARED, *SHARED_TOO)
    executor.update_parameters(
        **{name if name in shared else f"slurm_{name}": value for name, value in asked.items()}
    )
    return executor


@contextmanager
def _undisturbed(settings: Mapping[str, Any]) -> Iterator[None]:
    """Jobs inherit nothing that was meant for this process: neither its place among others, nor its terminal
    with Ctrl-C and its end, nor what reads this process's output until nobody writes there.
    """
    private = {name: os.environ.pop(name) for name in list(os.environ) if _is_private(name)}
    from_terminal = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]
    heard = {signum: signal.signal(signum, signal.SIG_IGN) for signum in from_terminal}
    streams: list[int] = []
    try:
        if settings["cluster"] == cluster.LOCAL:
            said = Path(settings["submitit_folder"]).parent / OUTPUT
            said.parent.mkdir(parents=True, exist_ok=True)
            print(end="", flush=True)  # what has been said goes where it was said
            streams = [os.dup(1), os.dup(2)]
            with said.open("ab") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
        yield
    finally:
        for number, stream in enumerate(streams, start=1):
            os.dup2(stream, number)
            os.close(stream)
        for signum, handler in heard.items():
            signal.signal(signum, handler)
        os.environ.update(private)


def _is_private(name: str) -> bool:
    return processes.PRIVATE_VARIABLES.fullmatch(name) is not None


def _reason(error: Exception) -> str:
    """What sbatch has said, without what submitit says around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith("sbatch:")]
    return " ".join(said) or (lines[-1] if lines else type(error).__name__)


def is_there(name: str, directory: Path, before: int | None) -> bool:
    """Whether a job that was queued before is queued or runs yet. One that is through leaves the queue soon,
    which is waited for: what it came to is not what it would come to if it was queued now.

    Args:
        name: in the queue.
        directory: of its run.
        before: as `exit_code` takes it.

    Raises:
        UsageError: where nobody says so, or it does not leave; it would be queued twice.
    """
    deadline = time.monotonic() + LEAVES
    try:
        while cluster.state(name) is not None:
            if not _is_over(directory, before):
                return True
            if time.monotonic() > deadline:
                raise UsageError(
                    f"hydra/launcher=slurm: {name} has done its work in {directory} and is in the queue yet; "
                    "try again when it has left, or scancel it"
                )
            time.sleep(1)
            cluster.forget()
    except cluster.SilentError as error:
        raise UsageError(
            f"hydra/launcher=slurm: {error}, so it is not known whether {name} is there yet; try again later"
        ) from error
    return False


def _is_over(directory: Path, before: int | None) -> bool:
    """Whether a job's own record says that it is through; one that was interrupted may be queued again."""
    is_new = before is None or stamp(directory) != before
    return is_new and _record(directory).get("status") == "finished"


def exit_code(name: str, directory: Path, before: int | None = None) -> int | None:
    """How a job has ended; None while it is queued or runs.

    Args:
        name: in the queue.
        directory: of its run.
        before: the stamp of its record when it was queued: what that said is not of this job.
    """
    try:
        there = cluster.state(name) is not None
    except cluster.SilentError:
        there = True
    record = _record(directory)
    code, status = record.get("exit_code"), record.get("status")
    is_new = before is None or stamp(directory) != before
    is_told = not there or (before is not None and cluster.is_asked_seldom(name))
    if status == "finished" and isinstance(code, int) and is_new and is_told:
        return code
    if not there and not record and has_results(directory):
        return 0
    if there:
        _gone.pop(name, None)
        return None
    if time.monotonic() - _gone.setdefault(name, time.monotonic()) < GRACE:
        return None
    if status == "running" or not isinstance(code, int):  # killed, or refused before it began
        return 1
    return code or 1


def _record(directory: Path) -> dict[str, Any]:
    try:
        return dict(read_record(directory)) if (directory / RECORD).exists() else {}
    except UsageError:
        return {}


def output(name: str, settings: Mapping[str, Any]) -> str:
    """Where a job's tasks write what they say."""
    return str(settings["submitit_folder"]).replace("%j", name.split(":")[1])
