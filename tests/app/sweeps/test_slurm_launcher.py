"""Sweeps in a queue: SLURM's, by programs that stand for it, and that of submitit's local executor."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, run_program

from ddpm.app.sweeps import record
from ddpm.runtime import processes

pytestmark = pytest.mark.e2e

EXTENSIONS = ROOT / "tests" / "extensions"
PATH = f"{EXTENSIONS}:{ROOT / 'src'}"

WORDS = (
    "-m", "hydra/launcher=slurm", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1",
    "logger=none", "hydra.sweep.dir=swept", "callbacks.slow._target_=pauses.Pauses", "allow_targets=[pauses]",
    "hydra.launcher.signal_delay_s=20", "hydra.launcher.timeout_min=10",
)  # fmt: skip


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a machine that has SLURM."""
    pytest.importorskip("submitit")
    programs, state = tmp_path / "bin", tmp_path / "state"
    programs.mkdir()
    state.mkdir()
    body = (EXTENSIONS / "stands_for_slurm.py").read_text()
    for name in ("sbatch", "srun", "squeue", "scontrol", "scancel"):
        (programs / name).write_text(f"#!{sys.executable}\n{body}")
        (programs / name).chmod(0o755)
    yield {
        "PATH": f"{programs}:{os.environ['PATH']}", "STANDS_FOR_SLURM": str(state), "PYTHONPATH": PATH,
    }  # fmt: skip
    _until(lambda: not list(state.glob("*.state")))


def started(cwd: Path, environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=cwd, stdin=subprocess.DEVNULL, text=True,
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _until(is_so: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate(timeout=600)[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.1)


def slow(tmp_path: Path) -> dict[str, str]:
    return {"PAUSE_AT": "training", "PAUSE_FILES": str(tmp_path), "PAUSE_SECONDS": "0.5"}


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


def begun(run: Path, step: int) -> Callable[[], bool]:
    """Whether a run has made so many steps."""
    return lambda: (run / "metrics.csv").exists() and len(losses(run)) >= step


@pytest.mark.slow
def test_a_job_is_queued_again_by_slurm_and_ends_as_if_nothing_had_been(
    smoke_run: Path, tmp_path: Path, slurm: dict[str, str]
):
    """The first of two jobs gets SLURM's signal in the middle; the second is of two tasks. The program is
    left by Ctrl-C, and the same command waits again.
    """
    words = (*WORDS, "trainer.devices=1,2")
    process = started(tmp_path, slurm | slow(tmp_path), *words)
    run = tmp_path / "swept" / "0"
    _until(begun(run, 5), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 128 + signal.SIGINT
    assert "scancel --state=PENDING 100 101; scancel --signal=INT 100 101" in said
    assert {job.status for job in record.read(tmp_path / "swept").jobs} <= {"queued", "running"}
    subprocess.run(["scancel", "--signal=USR2", "100"], env=os.environ | slurm, check=True, timeout=300)
    again = run_program("train.py", *words, cwd=tmp_path, env=slurm)
    assert again.returncode == 0, again.said
    assert "is queued already as slurm:100" in again.said
    assert "2 of 2 jobs finished" in again.said
    assert (tmp_path / "state" / "asked").read_text().splitlines()[0] == "scontrol requeue 100"
    values = json.loads((run / "run.json").read_text())
    assert [start["status"] for start in values["starts"]] == ["interrupted", "finished"]
    assert values["starts"][0]["why"] == "SIGUSR2"
    assert losses(run) == losses(smoke_run)
    assert json.loads((tmp_path / "swept" / "1" / "run.json").read_text())["devices"]["number"] == 2
    script = (tmp_path / "state" / "101.sh").read_text()
    assert "#SBATCH --ntasks-per-node=2" in script
    assert "#SBATCH --signal=USR2@20" in script
    assert "#SBATCH --requeue" in script
    assert "gpus" not in script


@pytest.mark.slow
def test_a_job_that_is_signalled_before_it_can_hear_is_queued_again(tmp_path: Path, slurm: dict[str, str]):
    """While the program is imported, which takes seconds."""
    words = (*WORDS[:-4], "trainer.max_steps=2", "callbacks.samples=null")
    process = started(tmp_path, slurm, *words)
    state = tmp_path / "state"

    def has_begun() -> bool:
        pids = (state / "100.tasks").read_text().split() if (state / "100.tasks").exists() else []
        return any(b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids)

    _until(has_begun, process)
    subprocess.run(["scancel", "--signal=USR2", "100"], env=os.environ | slurm, check=True, timeout=300)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert (state / "asked").read_text().splitlines()[0] == "scontrol requeue 100"
    values = json.loads((tmp_path / "swept" / "0" / "run.json").read_text())
    assert values["status"] == "finished"


@pytest.mark.slow
def test_an_array_is_queued_and_not_waited_for(tmp_path: Path, slurm: dict[str, str]):
    """One of its jobs has a value that only building can tell; what came of all is seen later."""
    words = (*WORDS[:-4], "trainer.max_steps=2", "callbacks.samples=null", "data.label_drop=0,2",
             "hydra.launcher.wait=false", "hydra.launcher.array_parallelism=2",
             "+hydra.launcher.additional_parameters={mail-type: END}")  # fmt: skip
    outcome = run_program("train.py", *words, cwd=tmp_path, env=slurm)
    assert outcome.returncode == 0, outcome.said
    assert "slurm:100_1" in outcome.said
    assert "2 jobs go on without this program" in outcome.said
    script = (tmp_path / "state" / "100.sh").read_text()
    assert "#SBATCH --array=0-1%2" in script
    assert "#SBATCH --mail-type=END" in script
    _until(lambda: not list((tmp_path / "state").glob("*.state")))
    looked = subprocess.run(
        [sys.executable, "-m", "ddpm", "sweep", "swept"], cwd=tmp_path, env=os.environ | slurm,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert [line.split()[2] for line in looked.stdout.splitlines()] == ["status", "finished", "failed"]
    (error,) = (tmp_path / "swept" / ".submitit" / "100_1").glob("*.err")
    assert "error: data.label_drop=2" in error.read_text()
    again = run_program("train.py", *words, "hydra.launcher.wait=true", cwd=tmp_path, env=slurm)
    assert again.returncode == 1
    assert again.said.count("finished before") == 1
    assert "1 of 2 jobs failed: [2/2]" in again.said


@pytest.mark.slow
def test_a_job_of_two_nodes_is_one_run(tmp_path: Path, slurm: dict[str, str]):
    words = (*WORDS[:-4], "trainer.num_nodes=2", "trainer.max_steps=2", "callbacks.samples=null")
    outcome = run_program("train.py", *words, cwd=tmp_path, env=slurm)
    assert outcome.returncode == 0, outcome.said
    script = (tmp_path / "state" / "100.sh").read_text()
    assert "#SBATCH --nodes=2" in script
    assert "#SBATCH --ntasks-per-node=1" in script
    values = json.loads((tmp_path / "swept" / "0" / "run.json").read_text())
    assert (values["status"], values["devices"]["number"], values["devices"]["nodes"]) == ("finished", 2, 2)
    assert len(list((tmp_path / "swept" / ".submitit" / "100").glob("100_[01]_log.out"))) == 2


@pytest.mark.slow
def test_what_sbatch_refuses_is_said(tmp_path: Path, slurm: dict[str, str]):
    words = (*WORDS[:-4], "hydra.launcher.partition=nowhere")
    outcome = run_program("train.py", *words, cwd=tmp_path, env=slurm)
    assert outcome.returncode == 2
    assert "not queued, sbatch: error: invalid partition specified: nowhere" in outcome.stderr
    assert "Traceback" not in outcome.said


@pytest.mark.parametrize(
    "devices", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.long)]
)
def test_the_local_executor_starts_a_job_again_that_it_has_signalled(
    devices: int, smoke_run: Path, tmp_path: Path
):
    pytest.importorskip("submitit")
    words = (*WORDS, "hydra.launcher.cluster=local", f"trainer.devices={devices}", "seed=0,1")
    process = started(tmp_path, {"PYTHONPATH": PATH} | slow(tmp_path), *words)
    run = tmp_path / "swept" / "0"
    _until(begun(run, 5), process)
    controller = int(str(record.read(tmp_path / "swept").jobs[0].queued).split(":")[1])
    for pid, parent in processes._parents():
        if parent == controller:
            os.kill(pid, signal.SIGUSR2)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0, said
    assert "2 of 2 jobs finished" in said
    values = json.loads((run / "run.json").read_text())
    assert [start["status"] for start in values["starts"]] == ["interrupted", "finished"]
    assert processes.start_of(controller) is None
    if devices == 1:
        assert losses(run) == losses(smoke_run)
    else:
        assert values["devices"]["number"] == 2
        assert [float(loss) for loss in losses(run)] == pytest.approx(
            [float(loss) for loss in losses(smoke_run)], rel=1e-4
        )


@pytest.mark.long
def test_what_ctrl_c_prints_ends_a_job_which_the_same_command_queues_anew(smoke_run: Path, tmp_path: Path):
    pytest.importorskip("submitit")
    words = (*WORDS, "hydra.launcher.cluster=local")
    process = started(tmp_path, {"PYTHONPATH": PATH} | slow(tmp_path), *words)
    run = tmp_path / "swept" / "0"
    _until(begun(run, 5), process)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 128 + signal.SIGINT, said
    assert "1 job goes on without this program" in said
    command = said.partition("end them")[2].split("\n")[0].split()
    assert command[0] == "kill"
    assert processes.start_of(int(command[1])) is not None
    subprocess.run(command, check=True, timeout=300)
    _until(lambda: processes.start_of(int(command[1])) is None)
    (job,) = record.read(tmp_path / "swept").jobs
    assert job.status == "interrupted"
    again = run_program("train.py", *words, cwd=tmp_path, env={"PYTHONPATH": PATH})
    assert again.returncode == 0, again.said
    assert "is queued already" not in again.said
    assert losses(run) == losses(smoke_run)


@pytest.mark.slow
def test_samples_are_drawn_in_the_queue_and_once(smoke_run: Path, tmp_path: Path, slurm: dict[str, str]):
    """A job of sample.py leaves no run.json: what it was asked for says that it is through."""
    words = (
        "-m", "hydra/launcher=slurm", f"ckpt={smoke_run}", "seed=0,1", "n=4", "sampler=ddim",
        "sampler.num_steps=2", "trainer.accelerator=cpu", "trainer.devices=1", "hydra.sweep.dir=drawn",
    )  # fmt: skip
    for said in ("2 of 2 jobs finished", "finished before"):
        outcome = run_program("sample.py", *words, cwd=tmp_path, env=slurm)
        assert outcome.returncode == 0, outcome.said
        assert said in outcome.said
    assert len(list((tmp_path / "drawn").glob("*/samples.npz"))) == 2


@pytest.mark.slow
def test_what_an_earlier_job_came_to_is_not_what_a_cancelled_one_does(tmp_path: Path, slurm: dict[str, str]):
    """A sweep that is finished and is to go on: its job is cancelled before it begins."""
    first = run_program("train.py", *WORDS, cwd=tmp_path, env=slurm)
    assert first.returncode == 0, first.said
    run = tmp_path / "swept" / "0"
    process = started(
        tmp_path, slurm, *WORDS, "trainer.max_steps=30", "hydra.launcher.partition=held"
    )  # fmt: skip
    _until(lambda: record.read(tmp_path / "swept").jobs[0].status == "queued", process)
    name = record.read(tmp_path / "swept").jobs[0].queued
    assert name is not None
    subprocess.run(["scancel", name.partition(":")[2]], env=os.environ | slurm, check=True, timeout=300)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 1, said
    assert [job.status for job in record.read(tmp_path / "swept").jobs] != ["finished"]
    assert len(losses(run)) == 20
