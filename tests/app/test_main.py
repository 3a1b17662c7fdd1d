"""python -m ddpm COMMAND, as typed."""

import subprocess
import sys
from pathlib import Path

import pytest

import ddpm


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    process = [sys.executable, "-m", "ddpm", *arguments]
    return subprocess.run(process, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_a_run_is_exported_and_imported_back(smoke_run: Path, tmp_path: Path):
    outcome = command("export", str(smoke_run), "pipeline", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    outcome = command("import", "pipeline", "run", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    ours, back = ddpm.load(smoke_run), ddpm.load(tmp_path / "run")
    theirs = back.module.ema.state_dict()["parameters"]
    assert all(
        (theirs[name] == value).all() for name, value in ours.module.ema.state_dict()["parameters"].items()
    )


def test_a_data_set_is_inspected(tmp_path: Path):
    outcome = command("inspect", "data=digits", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "1,437 to train on, 360 held out" in outcome.stdout
    assert len(list(tmp_path.glob("logs/inspect/*/contact_sheet.png"))) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nowhere", "out"], "nowhere"),
        (["import", "nowhere", "out"], "nowhere"),
        (["inspect", "data=folder"], "data.path is missing"),
        (["inspect", "data=digit"], "did you mean digits?"),
        (["sing"], "invalid choice"),
    ],
)
def test_mistakes_end_with_2_and_a_message(arguments: list[str], message: str, tmp_path: Path):
    outcome = command(*arguments, cwd=tmp_path)
    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_cache_is_listed_and_cleared(tmp_path: Path):
    for action in ("list", "clear"):
        outcome = command("cache", action, "--dir", str(tmp_path / "cache"), cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr
