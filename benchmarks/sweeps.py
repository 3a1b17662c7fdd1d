"""Sweeps on this machine: one that is ill-treated and finishes, and what several jobs at once bring.

    python benchmarks/sweeps.py endurance                  12 jobs, two at once
    python benchmarks/sweeps.py throughput                 one after the other, beside two at once

Endurance: a job raises, another one is killed by SIGKILL, and then the sweep's own process, in the middle.
After each of these the record is compared with what the jobs' directories show, and no process may be left.
The same command runs what is missing, and the job that raises once more; then every other one must have
finished, with the losses of a job that nobody disturbed, and the exit code is 1. A last start without the
fault ends with 0.

Throughput: seconds of a sweep of four jobs from its start to its end.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.app.sweeps import record

ROOT = Path(__file__).parents[1]

RAISES = "SWEEPS_RAISES"
"""Environment variable: whether the job with this seed raises."""


class Raises(Callback):
    """Fails in the middle of the run, where it is asked to."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step == 5 and os.environ.get(RAISES) == str(pl_module.seed):
            raise RuntimeError("on purpose")


def command(directory: Path, jobs: int, *words: str) -> list[str]:
    return [
        sys.executable, str(ROOT / "train.py"), "-m", "experiment=smoke", "trainer.accelerator=cpu",
        "trainer.devices=1", f"seed=range({jobs})", f"hydra.sweep.dir={directory}", "logger=none",
        "callbacks.samples=null", "allow_targets=[sweeps]", "callbacks.raises._target_=sweeps.Raises", *words,
    ]  # fmt: skip


def environment(**variables: str) -> dict[str, str]:
    here = str(Path(__file__).parent)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]),
        **variables,
    }


def states(directory: Path) -> dict[int, str]:
    """Each job as its directory shows it."""
    return {job.number: job.status for job in record.read(directory).looked_at().jobs}


def kept(directory: Path) -> dict[int, str]:
    """Each job as sweep.json has it."""
    jobs = json.loads((directory / record.NAME).read_text())["jobs"]
    return {job["number"]: job["status"] for job in jobs}


def left(directory: Path) -> list[str]:
    """Processes that are still at work there."""
    found = subprocess.run(["pgrep", "-f", str(directory)], capture_output=True, text=True).stdout.split()
    return [pid for pid in found if int(pid) != os.getpid()]


def until(is_so: Callable[[], bool], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            sys.exit("nothing happens any more")
        time.sleep(0.1)


def check(what: str, holds: bool, seen: object = "") -> None:
    print(f"{'yes' if holds else 'NO '}  {what}  {seen if not holds else ''}".rstrip(), flush=True)
    if not holds:
        sys.exit(1)


def losses(directory: Path) -> list[str]:
    with (directory / "metrics.csv").open() as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


def job_process(directory: Path, number: int) -> int:
    """The process of a job."""
    words = f"hydra.run.dir=.{directory / str(number)}"
    found = subprocess.run(["pgrep", "-f", words], capture_output=True, text=True).stdout.split()
    return int(found[0])


def endurance(jobs: int, folder: Path) -> None:
    directory, alone = folder / "swept", folder / "alone"
    two = "hydra.launcher.n_jobs=2"
    subprocess.run(command(alone, 1), check=True, capture_output=True, env=environment())
    sweep = subprocess.Popen(
        command(directory, jobs, two), env=environment(**{RAISES: "1"}), stdout=subprocess.DEVNULL
    )
    until(lambda: (directory / "2" / "metrics.csv").exists())
    os.kill(job_process(directory, 2), signal.SIGKILL)
    until(lambda: (directory / str(jobs // 2) / "metrics.csv").exists())
    seen = states(directory)
    told = (seen[1], seen[2]) == ("failed", "killed")
    check("a job that raised has failed, and one that was killed is told so", told, seen)
    check("others go on", seen[0] == "finished" and seen[jobs // 2] == "running", seen)
    sweep.kill()
    sweep.wait()
    until(lambda: not left(directory))
    check("when the sweep is killed its jobs end", not left(directory))
    seen = states(directory)
    counted = Counter(seen.values())
    ends = {"finished", "failed", "killed", "interrupted", "not started"}
    check("every job says what became of it", set(counted) <= ends and len(seen) == jobs, seen)
    finished = {number for number, status in seen.items() if status == "finished"}
    before = {number: (directory / str(number) / "run.json").read_bytes() for number in finished}
    code = subprocess.run(
        command(directory, jobs, two), env=environment(**{RAISES: "1"}), stdout=subprocess.DEVNULL
    ).returncode
    seen = states(directory)
    check("given again it ends with 1, for one job fails again", code == 1, code)
    check("all others have finished", Counter(seen.values()) == {"finished": jobs - 1, "failed": 1}, seen)
    check("sweep.json says the same", kept(directory) == seen, kept(directory))
    again = {number: (directory / str(number) / "run.json").read_bytes() for number in finished}
    check("what had finished was left alone", again == before)
    check(
        "a job that nobody disturbed is one that was stopped", losses(directory / "0") == losses(alone / "0")
    )
    code = subprocess.run(
        command(directory, jobs, two), env=environment(), stdout=subprocess.DEVNULL
    ).returncode
    check("without the fault it ends with 0", code == 0, code)
    check("all have finished", set(states(directory).values()) == {"finished"}, states(directory))
    lengths = {len(losses(directory / str(number))) for number in range(jobs)}
    check("each with all of its rows", lengths == {len(losses(alone / "0"))}, lengths)
    check("no process is left", not left(directory), left(directory))


def throughput(jobs: int, folder: Path, steps: int) -> None:
    words = (f"trainer.max_steps={steps}", "trainer.val_check_interval=100000")
    seconds = {}
    for at_once in (1, 2):
        began = time.monotonic()
        subprocess.run(
            command(folder / str(at_once), jobs, f"hydra.launcher.n_jobs={at_once}", *words),
            check=True, capture_output=True, env=environment(OMP_NUM_THREADS="1"),
        )  # fmt: skip
        seconds[at_once] = time.monotonic() - began
        print(f"{at_once} at once: {seconds[at_once]:.1f} s", flush=True)
    print(f"two at once are {seconds[1] / seconds[2]:.2f} times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("endurance", "throughput"))
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--steps", type=int, default=1500)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.what == "endurance":
            endurance(arguments.jobs or 12, Path(folder))
        else:
            throughput(arguments.jobs or 4, Path(folder), arguments.steps)


if __name__ == "__main__":
    main()
