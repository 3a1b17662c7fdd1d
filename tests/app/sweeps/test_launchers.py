"""A sweep's jobs are runs like any other, whichever of Hydra's launchers starts them."""

import csv
import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, Outcome, run_program

pytestmark = pytest.mark.e2e

SHORT = (
    "experiment=smoke", "trainer.devices=1", "trainer.max_steps=2", "trainer.val_check_interval=2",
    "callbacks.samples=null", "logger=none",
)  # fmt: skip

LEFT = {"config.yaml", "run.json", "metrics.csv", "checkpoints", "train.log"}


def swept(cwd: Path, *words: str) -> tuple[Outcome, list[Path]]:
    """How a sweep ended, and the directories of its jobs."""
    path = f"{ROOT / 'tests' / 'extensions'}:{ROOT / 'src'}"
    outcome = run_program("train.py", "-m", *SHORT, *words, cwd=cwd, env={"PYTHONPATH": path})
    (sweep,) = (cwd / "logs" / "train" / "multirun").iterdir()
    return outcome, sorted(path for path in sweep.iterdir() if path.name.isdigit())


def check_complete(directory: Path, smoke_run: Path | None = None) -> None:
    """A run directory with everything in it; with the losses of the smoke run where it is the same run."""
    assert {path.name for path in directory.iterdir()} >= LEFT
    record = json.loads((directory / "run.json").read_text())
    assert (record["status"], record["exit_code"], record["step"]) == ("finished", 0, 2)
    if smoke_run is not None:
        ours, theirs = (
            [row["train/loss"] for row in csv.DictReader((run / "metrics.csv").open(newline=""))][:2]
            for run in (directory, smoke_run)
        )
        assert ours == theirs


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("basic", marks=pytest.mark.long),
        pytest.param("submitit_local", marks=pytest.mark.slow),
    ],
)
def test_another_launcher_runs_jobs_and_tells_of_one_that_failed(
    launcher: str, smoke_run: Path, tmp_path: Path
):
    """The second job has a value that only building can tell."""
    if launcher == "submitit_local":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    outcome, jobs = swept(tmp_path, f"hydra/launcher={launcher}", "clip_x_0=true", "data.label_drop=0,2")
    assert outcome.returncode == 1, outcome.said
    assert [job.name for job in jobs] == ["0", "1"]
    check_complete(jobs[0], smoke_run)
    assert not (jobs[1] / "run.json").exists()
    assert "data.label_drop=2: exit code 2" in outcome.said
    rows = [line.split() for line in outcome.said.splitlines() if re.match(r"[01]  ", line)]
    assert [row[1:3] for row in rows] == [["0", "finished"], ["2", "failed"]]


@pytest.mark.slow
def test_jobs_of_joblib_run_at_once(smoke_run: Path, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    """Each job waits for the other to have begun."""
    outcome, jobs = swept(
        tmp_path, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "schedule=linear,cosine",
        "callbacks.waits._target_=watch.WaitsForTheOther", "allow_targets=[watch]",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.said
    assert len(jobs) == 2
    check_complete(jobs[0], smoke_run)
    check_complete(jobs[1])


@pytest.mark.slow
def test_a_job_that_fails_in_training_leaves_the_others_alone(smoke_run: Path, tmp_path: Path):
    """By our own launcher: the traceback at once, the others go on, and 1 at the end."""
    outcome, jobs = swept(
        tmp_path, "callbacks.broken={_target_:sabotage.Raises},null", "allow_targets=[sabotage]",
        "trainer.max_steps=4",
    )  # fmt: skip
    assert outcome.returncode == 1, outcome.said
    assert outcome.said.count("Traceback") == 1
    records = [json.loads((job / "run.json").read_text()) for job in jobs]
    assert [record["status"] for record in records] == ["failed", "finished"]
    assert [record["step"] for record in records] == [3, 4]
    assert "1 of 2 jobs finished" in outcome.said
    assert "callbacks.broken={_target_:sabotage.Raises} failed: exit code 1" in outcome.said
    assert "1 of 2 jobs failed: [1/2]" in outcome.said
