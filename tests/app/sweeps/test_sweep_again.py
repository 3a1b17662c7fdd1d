"""The same sweep again goes on where it was; another one does not spoil it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, composed, run_here, run_program

from ddpm.app import command_line, lock
from ddpm.app.arguments import Arguments
from ddpm.app.sweeps import record
from ddpm.app.sweeps.jobs import SweepJob

EXTENSIONS = os.pathsep.join(str(ROOT / place) for place in ("tests/extensions", "src"))

WORDS = ("experiment=smoke", "trainer.devices=1", "seed=0,1", "hydra.sweep.dir=swept")


class Given:
    """Stands for Hydra: writes down what it was given, and has one job leave something, if any."""

    def __init__(self) -> None:
        self.jobs: list[SweepJob] = []
        self.arguments: list[Arguments] = []
        self.leaves: str | None = "0"

    def __call__(self, job: Any, arguments: Arguments, program: str) -> None:
        self.jobs.append(job)
        self.arguments.append(arguments)
        if self.leaves is not None:
            (job.directory / self.leaves).mkdir(exist_ok=True)


@pytest.fixture
def hydra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    given = Given()
    monkeypatch.setattr(command_line, "_hand_to_hydra", given)
    return given


@pytest.fixture
def swept(hydra: Given, smoke_run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of two jobs, of which the first has finished."""
    assert run_here(monkeypatch, "train", "-m", *WORDS) == 0
    directory = Path("swept").absolute()
    shutil.rmtree(directory / "0")
    shutil.copytree(smoke_run, directory / "0")
    return directory


def test_a_new_one_has_all_to_do(hydra: Given, monkeypatch: pytest.MonkeyPatch):
    assert run_here(monkeypatch, "train", "-m", *WORDS) == 0
    assert hydra.jobs[0].done == frozenset()
    sweep = record.read(Path("swept").absolute())
    assert [job.status for job in sweep.jobs] == ["failed", "not started"]
    assert [job.max_steps for job in sweep.jobs] == [20, 20]
    assert sweep.typed == WORDS


def test_what_is_finished_is_not_done_again(
    swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert run_here(monkeypatch, "train", "-m", *WORDS) == 0
    assert hydra.jobs[-1].done == {0}
    said = capsys.readouterr().out
    assert "1 of 2 jobs finished" in said
    assert "train -m ckpt=swept\n" in said
    assert not (swept / ".lock").exists()


def test_with_more_steps_it_has_steps_left(swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch):
    assert run_here(monkeypatch, "train", "-m", *WORDS, "trainer.max_steps=21") == 0
    assert hydra.jobs[-1].done == frozenset()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=1,0"], "swept/0: holds another run: seed is 1 here and 0 there"),
        (["seed=0,1,2"], "swept: holds a sweep of 2 jobs, and this command has 3; choose another"),
        (["resume=never"], "swept/0: holds a run already, and resume=never"),
    ],
)
def test_another_one_is_refused(
    words: list[str], said: str, swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):  # fmt: skip
    before = {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()}
    kept = [word for word in WORDS if word.split("=")[0] not in {text.split("=")[0] for text in words}]
    assert run_here(monkeypatch, "train", "-m", *kept, *words) == 2
    assert said in capsys.readouterr().err
    assert {path: path.read_bytes() for path in swept.rglob("*") if path.is_file()} == before
    assert len(hydra.jobs) == 1


def test_that_of_another_program_is_refused(
    swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    words = (f"ckpt={swept}/0", "seed=0,1", f"hydra.sweep.dir={swept}")
    assert run_here(monkeypatch, "sample", "-m", *words) == 2
    assert "holds a sweep of train.py" in capsys.readouterr().err


def test_two_at_once_are_one(
    swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    held = lock.take(swept)
    try:
        assert run_here(monkeypatch, "train", "-m", *WORDS) == 2
    finally:
        held.release()
    assert f"hydra.sweep.dir={swept}" in capsys.readouterr().err


def test_it_is_named_by_its_directory_from_anywhere(
    swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "-m", f"ckpt={swept}", "trainer.max_steps=30") == 0
    job, arguments = hydra.jobs[-1], hydra.arguments[-1]
    assert job.directory == swept
    assert Path.cwd() == swept.parent, "paths are as they were typed"
    values = [composed("train", *words)["seed"] for words in _jobs(arguments)]
    assert values == [0, 1]
    assert arguments.value("trainer.max_steps") == 30
    assert arguments.value("ckpt") is None


def _jobs(arguments: Arguments) -> list[list[str]]:
    return [[text for text in words if "hydra" not in text] for words in arguments.jobs()]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["logger.x._target_=mine.Logger"], "is not in an allowed package"),
        (["logger=tensorboard", "logger.tensorboard.save_dir=/elsewhere"], "type it again: logger"),
    ],
)
def test_a_strangers_admits_nothing(
    typed: list[str], said: str, swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):  # fmt: skip
    values = json.loads((swept / "sweep.json").read_text())
    values["command"] += [*typed, "allow_targets=[mine]"]
    (swept / "sweep.json").write_text(json.dumps(values))
    assert run_here(monkeypatch, "train", "-m", f"ckpt={swept}") == 2
    assert said in capsys.readouterr().err
    assert len(hydra.jobs) == 1


def test_one_whose_place_is_gone_says_so(
    swept: Path, hydra: Given, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    values = json.loads((swept / "sweep.json").read_text())
    (swept / "sweep.json").write_text(json.dumps({**values, "working_directory": "/nowhere"}))
    assert run_here(monkeypatch, "train", "-m", f"ckpt={swept}") == 2
    assert "was started in /nowhere, which is gone" in capsys.readouterr().err


def test_a_job_of_a_cluster_finds_its_own_again(
    hydra: Given, monkeypatch: pytest.MonkeyPatch, smoke_run: Path
):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("SLURM_JOB_NAME", "night.sh")
    words = WORDS[:-1]
    assert run_here(monkeypatch, "train", "-m", *words) == 0
    directory = hydra.jobs[0].directory
    assert directory.name == "slurm_4711"
    shutil.rmtree(directory / "0")
    shutil.copytree(smoke_run, directory / "0")
    assert run_here(monkeypatch, "train", "-m", *words) == 0
    assert (hydra.jobs[1].directory, hydra.jobs[1].done) == (directory, {0})
    assert run_here(monkeypatch, "train", "-m", *words, "schedule=cosine") == 0
    assert hydra.jobs[2].directory.name == "slurm_4711-2", "another sweep of the same job"


def test_where_nothing_is_started_nothing_is_left(hydra: Given, monkeypatch: pytest.MonkeyPatch):
    hydra.leaves = None
    assert run_here(monkeypatch, "train", "-m", *WORDS) == 0
    assert not Path("swept").exists()


@pytest.mark.long
@pytest.mark.e2e
def test_one_that_is_killed_goes_on_and_ends_as_if_nothing_had_been(smoke_run: Path, tmp_path: Path):
    """Two jobs at once: the sweep's own process is killed; its jobs end by themselves, saved."""
    path = {"PYTHONPATH": EXTENSIONS}
    words = (
        "-m", "experiment=smoke", "trainer.devices=1", "seed=0,1,2", "hydra.sweep.dir=swept",
        "hydra.launcher.n_jobs=2", "callbacks.slow._target_=pauses.Pauses", "allow_targets=[pauses]",
    )  # fmt: skip
    slow = {"PAUSE_AT": "training", "PAUSE_FILES": str(tmp_path), "PAUSE_SECONDS": "0.5"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, stdin=subprocess.DEVNULL,
        env={**os.environ, **path, **slow},
    )  # fmt: skip
    sweep = tmp_path / "swept"
    _until(lambda: all((sweep / job / "metrics.csv").exists() for job in "01"))
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=300)
    _until(lambda: not any((sweep / job / ".lock").exists() for job in "01"))
    states = [job.status for job in record.read(sweep).jobs]
    assert states[2] == "not started"
    assert states[:2] == ["interrupted", "interrupted"]
    outcome = run_program("train.py", *words, cwd=tmp_path, env=path)
    assert outcome.returncode == 0, outcome.said
    assert [job.status for job in record.read(sweep).jobs] == ["finished"] * 3
    assert losses(sweep / "0") == losses(smoke_run)
    outcome = run_program("train.py", "-m", "ckpt=swept", "allow_targets=[pauses]", cwd=tmp_path, env=path)
    assert outcome.returncode == 0, outcome.said
    assert outcome.said.count("finished before") == 3


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row["train/loss"] for row in csv.DictReader(file)]


def _until(is_so: Any) -> None:
    deadline = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.e2e
def test_a_job_that_failed_is_run_again(tmp_path: Path):
    path = {"PYTHONPATH": EXTENSIONS}
    words = (
        "-m", "experiment=smoke", "trainer.devices=1", "trainer.max_steps=4", "hydra.sweep.dir=swept",
        "callbacks.broken={_target_:sabotage.Raises},null", "allow_targets=[sabotage]",
        "callbacks.samples=null",
    )  # fmt: skip
    outcome = run_program("train.py", *words, cwd=tmp_path, env=path)
    assert outcome.returncode == 1
    assert [job.status for job in record.read(tmp_path / "swept").jobs] == ["failed", "finished"]
    outcome = run_program("train.py", *words, cwd=tmp_path, env=path)
    assert outcome.returncode == 1
    assert outcome.said.count("finished before") == 1
    (tmp_path / "swept" / "sweep.csv").unlink()
    looked = subprocess.run(
        [sys.executable, "-m", "ddpm", "sweep", "swept"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert looked.returncode == 0, looked.stderr
    assert [line.split()[0] for line in looked.stdout.splitlines()] == ["job", "1", "0"]
    assert (tmp_path / "swept" / "sweep.csv").exists()
