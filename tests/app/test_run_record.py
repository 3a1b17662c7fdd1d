"""run.json: whole at any time, and readable by every JSON parser."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from conftest import ROOT

from ddpm.app.run_record import RunRecord, git_commit
from ddpm.app.train import _record_break
from ddpm.training.ending import Ending


def test_it_tells_the_beginning_and_the_end(tmp_path: Path):
    record = RunRecord(tmp_path, {"command": ["train.py", "seed=1"]})
    begun = json.loads((tmp_path / "run.json").read_text())
    assert begun["status"] == "running"
    assert begun["command"] == ["train.py", "seed=1"]
    record.end("finished", exit_code=0, metrics={"val/loss": float("nan"), "x": [1.0, float("inf")]})
    ended = json.loads((tmp_path / "run.json").read_text())
    assert ended["status"] == "finished"
    assert ended["metrics"] == {"val/loss": None, "x": [1.0, None]}
    assert ended["wall_seconds"] >= 0
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_it_tells_whether_the_code_is_that_of_the_commit():
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=300
        ).stdout.strip()

    assert git_commit() == {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),
    }


def test_returns_to_a_checkpoint_stay_in_the_record_of_a_run_that_goes_on(tmp_path: Path):
    RunRecord(tmp_path, {}).add_rollback(step=15, to_step=10)
    left = json.loads((tmp_path / "run.json").read_text())
    RunRecord(tmp_path, {}, step=10, left=left).add_rollback(step=18, to_step=10)
    rollbacks = json.loads((tmp_path / "run.json").read_text())["rollbacks"]
    assert [one["step"] for one in rollbacks] == [15, 18]


def test_what_breaks_a_run_off_asks_nothing_of_a_device_and_changes_no_end(tmp_path: Path):
    record = RunRecord(tmp_path, {})
    trainer: Any = SimpleNamespace(global_step=7, loggers=[])  # nothing else of it is looked at
    _record_break(record, trainer, Ending("failed", 1, "rank 1 is gone"))
    assert record.values["why"] == "rank 1 is gone"
    _record_break(record, trainer, Ending("interrupted", 143, "SIGTERM"))
    assert record.values["status"] == "failed"
