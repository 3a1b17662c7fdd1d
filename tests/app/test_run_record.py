"""run.json: whole at any time, and readable by every JSON parser."""

import json
import subprocess
from pathlib import Path

from conftest import ROOT

from ddpm.app.run_record import RunRecord, git_commit


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
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    assert git_commit() == {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),
    }
