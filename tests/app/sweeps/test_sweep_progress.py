"""While several jobs run at once it is shown how far each is."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from ddpm.app import lock
from ddpm.app.sweeps import progress, record
from ddpm.app.sweeps.progress import Progress


@pytest.fixture
def sweep(tmp_path: Path) -> record.Sweep:
    jobs = tuple(record.Job(i, tmp_path / str(i), (f"seed={i}",), max_steps=100) for i in range(2))
    found = record.Sweep(tmp_path, "train", (), (), str(tmp_path), "now", jobs)
    found.write()
    return found


def started(sweep: record.Sweep, shown: Progress, number: int) -> None:
    hydra = OmegaConf.create({"hydra": {"runtime": {"output_dir": str(sweep.jobs[number].directory)}}})
    cfg = OmegaConf.create({"trainer": {"max_steps": 100}})
    shown.started(number, [f"seed={number}", "hydra.verbose=true"], SimpleNamespace(hydra_cfg=hydra, cfg=cfg))


def test_a_terminal_shows_a_table_with_the_time_left(
    sweep: record.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO(), force_terminal=True, width=200))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    now = SimpleNamespace(monotonic=lambda: now.time, time=0.0)
    monkeypatch.setattr(progress, "time", now)
    with Progress(tmp_path, n_jobs=2) as shown:
        started(sweep, shown, 0)
        (tmp_path / "0").mkdir()
        (tmp_path / "0" / "run.json").write_text(json.dumps({"status": "running"}))
        held = lock.take(tmp_path / "0")
        for seconds, step in ((10.0, 20), (20.0, 40)):
            now.time = seconds
            (tmp_path / "0" / "metrics.csv").write_text(f"step,val/loss\n{step},0.5\n")
            shown.shown()
        held.release()
    said = progress.console.file.getvalue()
    assert "40/100" in said
    assert "30 s" in said, "60 steps at two a second"
    assert "not started" in said


def test_the_time_left_of_a_job_follows_its_speed_of_late(sweep: record.Sweep, tmp_path: Path):
    with Progress(tmp_path, n_jobs=2) as shown:
        now, said = 0.0, ""
        for step in range(10, 210, 10):
            now += 10.0 if step <= 100 else 100.0  # another job has begun beside it
            said = shown._left(replace(sweep.jobs[0], step=step, max_steps=1000), now)
    assert said == progress.duration(800 * 10.0)


def test_elsewhere_a_line_now_and_then(
    sweep: record.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO()))
    monkeypatch.setattr(progress, "BETWEEN_LINES", 0.0)
    caplog.set_level("INFO")
    with Progress(tmp_path, n_jobs=2) as shown:
        started(sweep, shown, 0)
        shown.ended(0, 1, 3.0)
        shown.shown()
    assert "1 failed, 1 not started" in caplog.text
    assert [(job.exit_code, job.seconds) for job in record.read(tmp_path).jobs] == [(1, 3.0), (None, 0.0)]


def test_one_job_at_a_time_shows_itself(
    sweep: record.Sweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    with Progress(tmp_path, n_jobs=1) as shown:
        shown.shown()
    with Progress(None, n_jobs=2) as nothing:
        nothing.started(0, [], None)
        nothing.ended(0, 0, 1.0)
        nothing.shown()
    assert caplog.text == ""


def test_a_job_that_is_chosen_late_is_in_the_table_and_in_the_record(
    sweep: record.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    search = {"n_trials": 20, "monitor": "val/loss", "direction": "minimize"}
    record.Sweep(tmp_path, "train", (), (), str(tmp_path), "now", search=search).write()
    monkeypatch.setattr(progress, "console", Console(file=io.StringIO(), force_terminal=True, width=200))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with Progress(tmp_path, n_jobs=2) as shown:
        for number in (1, 0):
            started(sweep, shown, number)
            shown.ended(number, 0, 3.0)
        shown.shown()
    said = progress.console.file.getvalue()
    assert "18 to be chosen" in said
    kept = record.read(tmp_path)
    assert [(job.number, job.overrides, job.status) for job in kept.jobs] == [
        (0, ("seed=0",), "finished"),
        (1, ("seed=1",), "finished"),
    ]
    assert kept.search == search
    assert kept.total == 20
