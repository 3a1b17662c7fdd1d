"""What a cluster's queue says of the jobs of a sweep, and how they are ended.

A job is called `slurm:NUMBER`, or `local:PROCESS:START` where submitit's own executor stands for SLURM.
"""

import getpass
import subprocess
import time
from collections.abc import Sequence

from ddpm.runtime import processes

SLURM, LOCAL = "slurm", "local"

EVERY = 15.0
"""Seconds between two questions: SLURM's controller answers everybody's."""

RUNNING = ("RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "SIGNALING", "STAGE_OUT")
"""States of jobs that have been started; others wait."""

_answer: tuple[float, dict[str, str] | None] = (float("-inf"), None)


class SilentError(OSError):
    """SLURM does not answer: there is no squeue here, or it fails."""


def name_of(cluster: str, number: str) -> str:
    """How a job is called that submitit has queued under a number."""
    if cluster == LOCAL:
        return f"{LOCAL}:{number}:{processes.start_of(int(number)) or 0}"
    return f"{cluster}:{number}"


def state(name: str | None) -> str | None:
    """Whether a job is "queued" or "running"; None for one that has left the queue, or was never there.

    Raises:
        SilentError: where nobody says so.
    """
    cluster, _, number = (name or "").partition(":")
    if cluster == LOCAL:
        process, _, start = number.partition(":")
        lives = process.isdecimal() and processes.start_of(int(process)) == start
        return "running" if lives else None
    if cluster != SLURM:
        return None
    if (found := _queue()) is None:
        raise SilentError("squeue does not answer")
    if number not in found:
        return None
    return "running" if found[number] in RUNNING else "queued"


def is_asked_seldom(name: str) -> bool:
    """Whether a job may have left the queue some time before that is known here."""
    return name.startswith(f"{SLURM}:")


def end(names: Sequence[str]) -> str:
    """The command that ends jobs: those that run save first, and none is queued again."""
    numbers = [name.split(":")[1] for name in names]
    if names[0].startswith(LOCAL):
        return f"kill {' '.join(numbers)}"
    whole = " ".join(dict.fromkeys(number.partition("_")[0] for number in numbers))
    return f"scancel --state=PENDING {whole}; scancel --signal=INT {whole}"


def forget() -> None:
    """Ask anew: jobs have been queued."""
    global _answer
    _answer = (float("-inf"), None)


def _queue() -> dict[str, str] | None:
    """The states of this person's jobs by number, as SLURM calls them; None where it does not say."""
    global _answer
    now = time.monotonic()
    if now - _answer[0] > EVERY:
        _answer = (now, _asked())
    return _answer[1]


def _asked() -> dict[str, str] | None:
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--user={getpass.getuser()}"]
    try:
        said = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    lines = (line.split() for line in said.splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}
