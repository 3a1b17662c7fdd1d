"""Hydra's callbacks around a single run."""

import json
from pathlib import Path

import pytest
from conftest import run_here

CODE = """
import json
from pathlib import Path

from hydra.experimental.callback import Callback


class Notes(Callback):
    def __init__(self, file, fail=False):
        self.file, self.fail = Path(file), fail

    def _note(self, *words):
        with self.file.open("a") as file:
            file.write(json.dumps(words) + "\\n")
        if self.fail:
            raise RuntimeError("no")

    def on_run_start(self, config, config_name, **kwargs):
        self._note("run start", config_name, config.seed)

    def on_job_start(self, config, *, task_function, **kwargs):
        self._note("job start", callable(task_function))

    def on_job_end(self, config, job_return, **kwargs):
        self._note("job end", job_return.status.name, job_return.cfg.seed, job_return.overrides)

    def on_run_end(self, config, **kwargs):
        self._note("run end")
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mynotes.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "notes.txt"


WORDS = ("+hydra.callbacks.notes._target_=mynotes.Notes", "+hydra.callbacks.notes.file=notes.txt", "seed=3")


def noted(file: Path) -> list[list[object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(("code", "status"), [(0, "COMPLETED"), (1, "FAILED")])
def test_they_are_called_around_the_run(notes: Path, monkeypatch: pytest.MonkeyPatch, code: int, status: str):
    words = (*WORDS, "allow_targets=[mynotes]")
    assert run_here(monkeypatch, "train", *words, prepare=lambda config, place: lambda: code) == code
    start, job, end, last = noted(notes)
    assert start == ["run start", "train", 3]
    assert job == ["job start", True]
    assert end[:3] == ["job end", status, 3]
    assert "++seed=3" in end[3]
    assert last == ["run end"]


def test_what_they_raise_is_a_warning(notes: Path, monkeypatch: pytest.MonkeyPatch):
    words = (*WORDS, "allow_targets=[mynotes]", "+hydra.callbacks.notes.fail=true")
    with pytest.warns(UserWarning, match=r"hydra\.callbacks: Notes\.on_job_end raised RuntimeError: no"):
        assert run_here(monkeypatch, "train", *words, prepare=lambda config, place: lambda: 0) == 0
    assert len(noted(notes)) == 4


def test_a_run_that_raises_is_noted_and_goes_on_raising(notes: Path, monkeypatch: pytest.MonkeyPatch):
    def fail() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_here(monkeypatch, "train", *WORDS, "allow_targets=[mynotes]", prepare=lambda config, place: fail)
    assert noted(notes)[2][:2] == ["job end", "FAILED"]


@pytest.mark.parametrize("multirun", [(), ("-m",)])
def test_a_package_that_is_not_admitted_is_refused(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, multirun: tuple[str, ...]
):
    assert run_here(monkeypatch, "train", *multirun, *WORDS) == 2
    assert "hydra.callbacks.notes._target_=mynotes.Notes: is not in an allowed package" in (
        capsys.readouterr().err
    )
    assert not notes.exists()


def test_hydras_own_need_no_leave(notes: Path, monkeypatch: pytest.MonkeyPatch):
    word = "+hydra.callbacks.log._target_=hydra.experimental.callbacks.LogJobReturnCallback"
    assert run_here(monkeypatch, "train", word, prepare=lambda config, place: lambda: 0) == 0
