"""Having SLURM queue a job again that a signal has ended."""

import logging
import os
import signal
import subprocess
from collections.abc import Mapping
from typing import Any

from ddpm.errors import UsageError

log = logging.getLogger(__name__)


def check(config: Mapping[str, Any]) -> None:
    """Refuse `requeue=true` where there is no job to be queued.

    Raises:
        UsageError: naming the key.
    """
    if config.get("requeue") and not os.environ.get("SLURM_JOB_ID"):
        raise UsageError(
            "requeue=true: is for a job of SLURM, and $SLURM_JOB_ID is not set; requeue=false elsewhere"
        )


def requeue(signum: int) -> str | None:
    """Have this job queued again, unless a person ended it by Ctrl-C.

    Returns:
        What came of it, in words; None where nothing was asked of SLURM.
    """
    if signum == signal.SIGINT:
        return None
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":  # which stands for SLURM, and has no scontrol
        return "submitit's local executor: started again"
    command = ["scontrol", "requeue", job()]
    said = " ".join(command)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        outcome = f"{said}: {error}"
    else:
        if done.returncode == 0:
            log.info("%s: queued again", said)
            return f"{said}: queued again"
        answer = (done.stderr or done.stdout).strip() or "no word of why"
        outcome = f"{said}: exit code {done.returncode}, {answer}"
    log.error("the job is not queued again: %s", outcome)
    return outcome


def job() -> str:
    """How SLURM calls this job; a task of an array by the array's own number."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
