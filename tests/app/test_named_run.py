"""What is named as a trained run and is none is refused alike by every command that takes one."""

import json
from pathlib import Path

import pytest
from conftest import run_command, run_here

from ddpm.app.named_run import check_foreign, check_run
from ddpm.errors import UsageError

COMMANDS = {
    "sample": "sample {}",
    "evaluate": "evaluate {}",
    "train": "train {}",
    "export": "export {} out",
    "figure": "figure schedule {} --out out.png",
    "loss": "figure loss {} --out out.png",
    "ema": "ema {} sigma_rel=0.1",
    "demo": "demo {} --port 0",
    "import": "import {} out",
    "report": "report {} --out out.html",
}

NO_RUNS = {
    "sweep": "sweep: is a sweep of 5 jobs; name one: {key}{at}/sweep/0, {key}{at}/sweep/1, "
    "{key}{at}/sweep/2, ... {key}{at}/sweep/10",
    "new_sweep": "new_sweep: is a sweep, of which no job has left a run",
    "begun": "begun: is a run without a checkpoint, it ended before its first or is on the way to it "
    "(run.json says failed)",
    "empty": "empty: holds no checkpoint; give a run directory or a .ckpt file",
    "words.ckpt": "words.ckpt: cannot be read, it is too short for a checkpoint",
    "nowhere": "nowhere: there is no such run directory or checkpoint file",
}

OTHERWISE = {
    ("loss", "words.ckpt"): "words.ckpt: lies in no run directory, there is no metrics.csv in",
    ("loss", "nowhere"): "nowhere: there is no such run",
    ("loss", "empty"): "empty: holds no metrics.csv, as a run directory does",
    ("import", "sweep"): "sweep: is a sweep of this program, whose runs need no import",
    ("import", "new_sweep"): "new_sweep: is a sweep of this program",
    ("import", "begun"): "begun: is a run of this program, which needs no import",
    ("import", "empty"): "empty: name one file of weights",
    ("import", "words.ckpt"): "words.ckpt: cannot be read without running what may be code of it",
    ("import", "nowhere"): "nowhere: cannot be read (No such file",
    ("report", "empty"): "empty: is no run or sweep",
    ("report", "words.ckpt"): "words.ckpt: is a file; name the directory of a run or sweep",
    ("report", "nowhere"): "nowhere: there is no such directory",
}
"""What commands say instead that take other things too."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which all of these lie."""
    for name in ("empty", "begun", "new_sweep"):
        (tmp_path / name).mkdir()
    for job in (0, 1, 2, 3, 10, "²"):  # the last is a digit, and no number
        (tmp_path / "sweep" / str(job)).mkdir(parents=True)
        (tmp_path / "sweep" / str(job) / "run.json").write_text("{}")
    for name in ("sweep", "new_sweep"):
        (tmp_path / name / "sweep.json").write_text("{}")
    (tmp_path / "begun" / "run.json").write_text(json.dumps({"layout": 1, "status": "failed"}))
    (tmp_path / "words.ckpt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_run_is_refused_by_what_it_is(
    command: str, there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    before = sorted(there.rglob("*"))
    for name, said in NO_RUNS.items():
        said = OTHERWISE.get((command, name), said)
        if command == "report" and name in ("sweep", "new_sweep", "begun"):
            continue  # each has a page
        if command in ("sample", "evaluate", "train", "demo") and name in ("empty", "words.ckpt"):
            continue  # which is told when it is loaded
        first, *words = COMMANDS[command].format(name).split()
        if first in ("sample", "evaluate", "train"):
            assert run_here(monkeypatch, first, f"ckpt={name}") == 2
        else:
            assert run_command(monkeypatch, first, *words) == 2
        error = capsys.readouterr().err
        key = "ckpt=" if first in ("sample", "evaluate", "train") else ""
        assert said.format(key=key, at=there) in " ".join(error.split()), (command, name)
        assert "Traceback" not in error
    assert sorted(there.rglob("*")) == before


def test_links_and_checkpoints_are_called_what_they_are(tmp_path: Path):
    (tmp_path / "lost").symlink_to("gone")
    with pytest.raises(UsageError, match="lost: is a link to gone, which is not there"):
        check_run(tmp_path / "lost", "ckpt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "best.ckpt").symlink_to(tmp_path / "run" / "checkpoints" / "last.ckpt")
    check_run(tmp_path / "best.ckpt", "ckpt")
    with pytest.raises(UsageError, match=r"best\.ckpt: is a checkpoint of a run of this program"):
        check_foreign(tmp_path / "best.ckpt")
