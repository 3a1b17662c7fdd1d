"""A search by `hparams_search=optuna`: what is refused before its first job, and a whole one."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, patch_time, run_here, run_program

from ddpm.app import arguments, command_line, lock
from ddpm.app.sweeps import record, search, show
from ddpm.app.sweeps.jobs import SWEEP, SweepJob, end_with_sweep
from ddpm.app.sweeps.study import Study
from ddpm.errors import UsageError

SMOKE = ("hparams_search=optuna", "experiment=smoke", "trainer.devices=1")


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[SweepJob]:
    """What Hydra is given, which runs nothing; one job has left something."""
    monkeypatch.chdir(tmp_path)
    given: list[SweepJob] = []

    def hand(job: Any, *_: Any) -> None:
        given.append(job)
        (job.directory / "0").mkdir(exist_ok=True)

    monkeypatch.setattr(command_line, "_hand_to_hydra", hand)
    return given


def test_what_is_typed_and_what_the_file_says(handed: list[SweepJob], monkeypatch: pytest.MonkeyPatch):
    words = (
        "-m", *SMOKE, "hydra.sweep.dir=swept", "model.dropout=0.2", "schedule=linear,cosine",
        "hydra.sweeper.n_trials=7", "hydra.sweeper.pruner=null",
    )  # fmt: skip
    assert run_here(monkeypatch, "train", *words) == 0
    found = handed[0].search
    assert found is not None
    assert [one.key for one in found.space] == ["++optimizer.lr", "schedule"], "what has one value is not"
    assert "++model.dropout=0.2" in found.common
    assert not any("schedule" in text for text in found.common)
    assert (found.n_trials, found.pruner, found.max_steps) == (7, None, 20)
    kept = record.read(Path("swept").absolute())
    assert kept.search == found.kept
    assert kept.total == 7


def test_every_value_is_tried_before_the_first_job():
    words = ("-m", *SMOKE, "schedule=linear,cosine", "model.dropout=range(0,0.3,0.1)")
    found, multirun = command_line.checked(arguments.read(words), "train")
    assert multirun
    names = {job.values["schedule"]["_target_"].rpartition(".")[2] for job in found}
    assert names == {"linear", "cosine"}
    assert {job.values["optimizer"]["lr"] for job in found} == {1e-4, 1e-3, 1e-2}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs -m"),
        (["-m", "hydra.sweeper.params=null"], "there is nothing to search"),
        (["-m", "optimizer.lrr=interval(1e-4,1e-2)"], "optimizer.lrr: there is no such key; did you mean"),
        pytest.param(["-m", "model.dropuot=interval(0,1)"], "model.dropuot", marks=pytest.mark.slow),
        pytest.param(
            ["-m", "optimizer.lr=interval(1e-2,1e-4)"],
            "must lead from a number to a greater one",
            marks=pytest.mark.slow,
        ),
        (["-m", "optimizer.lr=interval(1e-4,x)"], "optimizer.lr=interval(1e-4,x): cannot be read"),
        (["-m", "model.channels=interval(32,64)"], "model.channels=44.224: must be a whole number"),
        pytest.param(["-m", "schedule=linear,cosin"], "did you mean cosine", marks=pytest.mark.slow),
        (["-m", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: must be at least 1"),
        pytest.param(["-m", "hydra.sweeper.n_trails=3"], "hydra.sweeper.n_trails", marks=pytest.mark.slow),
        pytest.param(
            ["-m", "hydra.sweeper.direction=up"], "must be minimize or maximize", marks=pytest.mark.slow
        ),
        pytest.param(["-m", "hydra.sweeper.seed=-1"], "must be at least 0", marks=pytest.mark.slow),
        pytest.param(
            ["-m", "hydra.sweeper.pruner.percentile=101"], "must be at most 100", marks=pytest.mark.slow
        ),
        pytest.param(
            ["-m", "hydra.sweeper.pruner.n_min_trials=0"], "must be at least 1", marks=pytest.mark.slow
        ),
        pytest.param(["-m", "+hydra.sweeper.params.seed='3'"], "seed=3 is one value", marks=pytest.mark.slow),
        pytest.param(["-m", "hydra.sweeper.n_trials=2,3"], "belongs to the search", marks=pytest.mark.slow),
        (["-m", "hydra.sweeper.monitor=val/lss"], "val/lss: no run measures it; there are val/loss"),
        (["-m", "trainer.limit_val_batches=0"], "nothing is validated where trainer.limit_val_batches=0"),
        (["-m", "hydra/launcher=basic"], "leave hydra/launcher out"),
        pytest.param(["-m", "preflight=true"], "preflight=true", marks=pytest.mark.slow),
    ],
)
def test_what_is_refused(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", *SMOKE, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    assert run_here(monkeypatch, "train", "-m", *SMOKE) == 2
    assert "pip install 'ddpm[sweep]'" in capsys.readouterr().err


def test_a_metric_that_somebody_elses_callback_may_log_is_let_in():
    words = ("-m", *SMOKE, "hydra.sweeper.monitor=mine/x", "callbacks.x._target_=pauses.Pauses")
    found, _ = command_line.checked(arguments.read([*words, "allow_targets=[pauses]"]), "train")
    assert found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["schedule=linear,cosine"], "holds another search, of which what is searched is"),
        (["schedule=cosine"], "swept/0: holds another run: schedule"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [
                (
                    ["hydra.sweeper.direction=maximize"],
                    "hydra.sweeper.direction is minimize, and here maximize",
                ),
                (["trainer.max_steps=30"], "of which trainer.max_steps is 20, and here 30"),
                (["resume=never"], "swept/0: holds a run already, and resume=never"),
                (
                    ["hydra/sweeper=basic", "hparams_search=null", "seed=0,1"],
                    "holds a search, and this command",
                ),
            ]
        ),
    ],
)
@pytest.mark.slow
def test_another_search_does_not_go_on(
    words: list[str], said: str, handed: list[SweepJob], smoke_run: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):  # fmt: skip
    plain = ("-m", *SMOKE, "hydra.sweep.dir=swept")
    assert run_here(monkeypatch, "train", *plain) == 0
    directory = Path("swept").absolute()
    shutil.rmtree(directory / "0")
    shutil.copytree(smoke_run, directory / "0")
    own = ("hparams_search=optuna", "experiment=smoke", "++optimizer.lr=0.002", "++model.dropout=0.0")
    record.read(directory).with_job(0, overrides=own, exit_code=0).write()
    before = (directory / "sweep.json").read_text()
    assert run_here(monkeypatch, "train", *plain, *words) == 2
    assert said in capsys.readouterr().err
    assert (directory / "sweep.json").read_text() == before
    assert len(handed) == 1


@pytest.mark.slow
def test_a_sweep_does_not_become_a_search(
    handed: list[SweepJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert run_here(monkeypatch, "train", "-m", *SMOKE[1:], "seed=0,1", "hydra.sweep.dir=swept") == 0
    assert run_here(monkeypatch, "train", "-m", *SMOKE, "hydra.sweep.dir=swept") == 2
    assert "holds a sweep, and this command is a search" in capsys.readouterr().err


def test_jobs_of_a_dead_search_are_waited_for(tmp_path: Path):
    held = lock.take(tmp_path)
    try:
        with pytest.raises(UsageError, match="still running there"):
            search.wait_for_jobs([tmp_path], seconds=0.1)
    finally:
        held.release()
    search.wait_for_jobs([tmp_path, tmp_path / "nowhere"])


def test_a_job_whose_sweep_died_while_it_was_starting_ends(monkeypatch: pytest.MonkeyPatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(timeout=300)
    monkeypatch.setenv(SWEEP, str(gone.pid))
    monkeypatch.setenv("LOCAL_RANK", "1")
    end_with_sweep()  # a rank has another parent
    monkeypatch.delenv("LOCAL_RANK")
    with pytest.raises(SystemExit) as ended:
        end_with_sweep()
    assert ended.value.code == 128 + signal.SIGTERM
    monkeypatch.setenv(SWEEP, str(os.getpid()))
    end_with_sweep()  # started by a job that runs


@pytest.mark.slow
def test_the_screen_at_the_end(handed: list[SweepJob], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The best trial is first in the table, whatever the directory of another metric says."""
    words = (
        "-m",
        *SMOKE,
        "hydra.sweep.dir=swept",
        "hydra.sweeper.n_trials=6",
        "hydra.sweeper.direction=maximize",
    )
    assert run_here(monkeypatch, "train", *words) == 0
    job = handed[0]
    assert job.search is not None
    found = Study(job.directory, job.search)
    for chosen in found.jobs(job.search.common):
        directory = job.directory / str(chosen.number)
        directory.mkdir(exist_ok=True)
        status = "pruned" if chosen.number == 4 else "finished"
        values = {"status": status, "metrics": {"val/loss": float(chosen.number)}}
        (directory / "run.json").write_text(json.dumps(values))
        sweep = record.read(job.directory)
        sweep.with_job(
            chosen.number, directory=directory, overrides=tuple(chosen.overrides), exit_code=0
        ).write()
        found.ended(chosen.number, directory, 0)
    said = show.at_the_end(job.directory, tmp_path)
    assert "6 of 6 jobs finished, 1 of them ended early" in said
    assert "  best trial    5: val/loss 5  optimizer.lr=" in said
    assert "  importance    " in said
    assert "continue it" not in said
    sweep = record.read(job.directory)
    (job.directory / "5" / "run.json").write_text(json.dumps({"status": "running"}))
    for code, goes_on in ((-9, False), (143, True), (None, True)):
        sweep.with_job(5, exit_code=code).write()
        assert ("continue it" in show.at_the_end(job.directory, tmp_path)) == goes_on, code
    (job.directory / "5" / "run.json").write_text(
        json.dumps({"status": "finished", "metrics": {"val/loss": 5.0}})
    )
    sweep.with_job(5, exit_code=0).write()
    assert (job.directory / "search.png").exists()
    rows = list(csv.DictReader((job.directory / "sweep.csv").open()))
    assert [row["job"] for row in rows] == ["5", "3", "2", "1", "0", "4"]
    assert {"optimizer.lr", "model.dropout"} <= set(rows[0])


def test_the_launcher_asks_for_a_job_when_a_place_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two at once: the third is chosen when the first is through, and the fourth when it has failed."""
    from hydra.core.utils import JobReturn, JobStatus
    from omegaconf import OmegaConf

    from ddpm.app.sweeps import shares
    from ddpm.app.sweeps.jobs import Chosen
    from hydra_plugins import fresh_process_launcher as launching

    events: list[str] = []
    lasts = {0: 1, 1: 3, 2: 1, 3: 1}  # looks until it is over
    launcher = launching.FreshProcessLauncher(n_jobs=2)
    overrides = {"overrides": {"task": ["seed=0"]}, "hydra_logging": None, "verbose": False}
    launcher.setup(
        hydra_context=None, task_function=lambda _: None, config=OmegaConf.create({"hydra": overrides})
    )  # fmt: skip

    def start(job: Any, gpus: int) -> None:
        events.append(f"start {job.number} at {job.place}: {job.differs}")
        cfg = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(tmp_path / str(job.number))}}})
        job.result = JobReturn(hydra_cfg=cfg)
        job.process, job.began = SimpleNamespace(code=3 if job.number == 2 else 0), 1.0

    def is_over(job: Any, received: list[int]) -> bool:
        lasts[job.number] -= 1
        job.result.status = JobStatus.FAILED if job.number == 2 else JobStatus.COMPLETED
        return lasts[job.number] == 0

    def choose() -> Any:
        for number in range(4):
            events.append(f"choose {number}")
            yield Chosen(number, ["seed=0", f"x={number}"])

    def ended(number: int, directory: Path, code: int, *, stopped: bool) -> None:
        events.append(f"end {number} {directory.name} {code} {stopped}")

    monkeypatch.setattr(launcher, "_start", start)
    monkeypatch.setattr(launcher, "_is_over", is_over)
    monkeypatch.setattr(launching, "configure_log", lambda *_: None)
    patch_time(monkeypatch, launching, sleep=lambda _: None)
    monkeypatch.setattr(shares, "gpus_here", lambda: 0)
    results = launcher.launch_each(choose(), 4, ended)
    assert events == [
        "choose 0", "start 0 at 0: x=0", "choose 1", "start 1 at 1: x=1", "end 0 0 0 False",
        "choose 2", "start 2 at 0: x=2", "end 2 2 3 False",
        "choose 3", "start 3 at 0: x=3", "end 1 1 0 False", "end 3 3 0 False",
    ]  # fmt: skip
    with pytest.raises(launching.JobsFailed, match=r"1 of 4 jobs failed: \[3/4\]"):
        _ = results[2].return_value


def _processes_in(directory: Path) -> list[str]:
    """Command lines of processes whose jobs write in a directory."""
    listed = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, timeout=300).stdout
    return [line for line in listed.splitlines() if str(directory) in line]


@pytest.mark.long
@pytest.mark.e2e
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="needs the extra sweep")
def test_one_of_ten_trials_is_killed_and_goes_on(tmp_path: Path):
    """Two at once, with pruning; the search's own process is killed in the middle."""
    words = (
        "-m", "hparams_search=optuna", "experiment=smoke", "trainer.accelerator=cpu", "trainer.devices=1",
        "logger=none", "callbacks.samples=null", "trainer.val_check_interval=5",
        "callbacks.checkpoints.every_n_steps=5",
        "trainer.max_steps=30", "hydra.sweep.dir=swept", "hydra.launcher.n_jobs=2",
        "hydra.sweeper.n_trials=10", "hydra.sweeper.pruner.n_startup_trials=3",
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    sweep = tmp_path / "swept"
    deadline = time.monotonic() + 280
    while not all((sweep / job / "metrics.csv").exists() for job in "45"):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=300)
    before = {job.number: job for job in record.read(sweep).jobs}
    through = [number for number, job in before.items() if job.is_done]
    times = {number: (sweep / str(number) / "run.json").stat().st_mtime_ns for number in through}
    assert 3 <= len(through) < 10

    outcome = run_program("train.py", *words, cwd=tmp_path, timeout=900)
    assert outcome.returncode == 0, outcome.said
    assert "10 of 10 jobs finished" in outcome.said
    assert not _processes_in(sweep)
    jobs = record.read(sweep).jobs
    assert [job.number for job in jobs] == list(range(10))
    assert {job.status for job in jobs} == {"finished", "pruned"}
    assert times == {number: (sweep / str(number) / "run.json").stat().st_mtime_ns for number in through}
    for number, job in before.items():
        assert jobs[number].overrides == job.overrides, "a trial that goes on is the same"
    assert len({job.overrides for job in jobs}) == 10, "none twice"
    kept = json.loads((sweep / "sweep.json").read_text())
    finished = [job for job in kept["jobs"] if job["status"] == "finished"]
    best = min(finished, key=lambda job: job["metrics"]["val/loss"])
    assert f"best trial    {best['number']}: val/loss {best['metrics']['val/loss']:.5g}" in outcome.said
    assert "importance    optimizer.lr" in outcome.said
    assert all(job["step"] < 30 for job in kept["jobs"] if job["status"] == "pruned")
    pruned = next(job for job in jobs if job.status == "pruned")
    said = json.loads((pruned.directory / "run.json").read_text())
    assert (said["status"], said["exit_code"]) == ("pruned", 0)
    assert "earlier trials were better at step" in said["why"]

    looked = subprocess.run(
        [sys.executable, "-m", "ddpm", "sweep", "swept"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert looked.returncode == 0, looked.stderr
    assert f"best trial    {best['number']}:" in looked.stdout
    again = run_program("train.py", "-m", "ckpt=swept", cwd=tmp_path)
    assert again.returncode == 0, again.said
    assert [job.seconds for job in record.read(sweep).jobs] == [job.seconds for job in jobs], (
        "nothing was run"
    )
