"""From the command line to a job: what is started, where, and what is left when nothing is."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import run_here

from ddpm.app import command_line
from ddpm.app.arguments import Arguments
from ddpm.app.run_directory import Place
from ddpm.app.sweeps import jobs
from ddpm.errors import UsageError


class Recorded:
    """Stands for a program's job, and for Hydra running a sweep: writes down what it was given."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.configs: list[dict[str, Any]] = []
        self.sweeps: list[Arguments] = []
        self.cwds: list[Path] = []

    def prepare(self, config: dict[str, Any], place: Place) -> command_line.Job:
        self.configs.append(config)
        self.places.append(place)

        def job() -> int:
            self.cwds.append(Path.cwd())
            return 0

        return job

    def hand_to_hydra(self, task: Any, arguments: Arguments, program: str) -> None:
        self.sweeps.append(arguments)
        directory = next(o.value() for o in arguments.parsed if o.key_or_group == "hydra.sweep.dir")
        assert isinstance(directory, str)
        (Path(directory) / "0").mkdir()


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.chdir(tmp_path)
    recorded = Recorded()
    monkeypatch.setattr(command_line, "_hand_to_hydra", recorded.hand_to_hydra)
    return recorded


def run(recorded: Recorded, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    return run_here(monkeypatch, "train", *words, prepare=recorded.prepare)


@pytest.mark.e2e
def test_two_sweeps_of_one_second_get_a_directory_each(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "same.yaml").write_text(  # the name of one second
        "# @package _global_\nhydra: {sweep: {dir: logs/now}}\n"
    )
    for _ in range(3):
        words = ("--config-dir", "own", "experiment=same", "-m", "schedule=linear,cosine")
        assert run(recorded, monkeypatch, *words) == 0
    directories = [sweep.value("hydra.sweep.dir") for sweep in recorded.sweeps]
    assert directories == [str(tmp_path / "logs" / name) for name in ("now", "now-2", "now-3")]


def test_a_sweep_that_starts_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line, "_hand_to_hydra", lambda *arguments: None)
    assert run_here(monkeypatch, "train", "-m", "schedule=linear,cosine") == 0
    assert not list(tmp_path.rglob("multirun/*"))


def test_two_runs_of_one_second_get_a_directory_each(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for _ in range(3):
        assert run(recorded, monkeypatch) == 0
    assert len({place.directory for place in recorded.places}) == 3
    assert all(place.directory.is_dir() for place in recorded.places)


@pytest.mark.parametrize("name", ["实验 1/it's run", "a=b,[c]", "~user", "x#y & z"])
def test_a_run_directory_is_named_as_typed(
    name: str, recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(recorded, monkeypatch, f"hydra.run.dir={name}") == 0
    assert recorded.places[0].directory == tmp_path / name
    assert (tmp_path / name).is_dir()


def test_the_directory_is_worked_in_where_hydra_is_told_so(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert run(recorded, monkeypatch, "hydra.job.chdir=true", "hydra.run.dir=here") == 0
    assert run(recorded, monkeypatch, "hydra.run.dir=there") == 0
    assert recorded.cwds == [tmp_path / "here", tmp_path]
    assert Path.cwd() == tmp_path
    assert recorded.places[0].cwd == tmp_path
    assert recorded.places[0].directory == tmp_path / "here"


def test_variables_that_hydra_is_told_of_are_set(recorded: Recorded, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MINE", raising=False)
    seen: list[str | None] = []

    def prepare(config: dict[str, Any], place: Place) -> command_line.Job:
        seen.append(os.environ.get("MINE"))
        return recorded.prepare(config, place)

    for preflight in ("preflight=false", "preflight=true"):
        words = ("+hydra.job.env_set.MINE=3", preflight)
        assert run_here(monkeypatch, "train", *words, prepare=prepare) == 0
        assert seen.pop() == os.environ.pop("MINE") == "3", "before anything is built"


def test_what_a_file_system_says_while_building_is_not_about_the_directory(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
):
    def prepare(config: dict[str, Any], place: Place) -> command_line.Job:
        raise OSError("of something else")

    with pytest.raises(OSError, match="of something else"):
        run_here(monkeypatch, "train", prepare=prepare)


def test_what_was_made_for_a_run_that_cannot_be_goes(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(config: dict[str, Any], place: Place) -> command_line.Job:
        assert place.directory.is_dir()
        raise UsageError("no")

    (tmp_path / "mine").mkdir()
    for words in ([], ["hydra.run.dir=a/b"], ["hydra.run.dir=mine"]):
        assert run_here(monkeypatch, "train", *words, prepare=refuse) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_directory_that_cannot_be_made_is_told(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "file").write_text("")
    assert run(recorded, monkeypatch, "hydra.run.dir=file/run") == 2
    assert "hydra.run.dir=" in capsys.readouterr().err


def test_jobs_are_called_by_what_differs():
    typed = ["experiment=smoke", "schedule=linear,cosine", "++data.path=a,b", "seed=1"]
    job = ["experiment=smoke", "schedule=cosine", "++data.path='/图 片'", "seed=1"]
    assert jobs.label(job, typed) == "schedule=cosine data.path=/图 片"
    assert jobs.label(["++model.multipliers=[1,2]"], []) == "model.multipliers=[1,2]"
    same = ["experiment=smoke", "seed=1"]
    assert jobs.label(same, same) == "experiment=smoke seed=1"


def test_a_job_gets_the_overrides_that_are_not_about_the_sweep():
    hydra = SimpleNamespace(
        overrides=SimpleNamespace(
            task=["schedule=cosine"],
            hydra=["hydra.mode=MULTIRUN", "hydra/launcher=joblib", "hydra.verbose=true", "hydra.sweep.dir=x"],
        ),
        sweep=SimpleNamespace(dir="it's here"),
        job=SimpleNamespace(num=3, id="3"),
    )
    found = jobs.job_overrides(hydra, Path("/a b/3"))
    assert found[:2] == ["schedule=cosine", "hydra.verbose=true"]
    assert "hydra.mode=RUN" in found
    assert "hydra.run.dir='/a b/3'" in found
    assert r"hydra.sweep.dir='it\'s here'" in found
    assert not any("joblib" in text or "MULTIRUN" in text for text in found)


@pytest.mark.e2e
def test_messages_come_from_one_process_of_a_job(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("RANK", "1")
    assert run(recorded, monkeypatch, "schedul=linear") == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert run(recorded, monkeypatch, "schedul=linear") == 2
    assert "did you mean schedule?" in capsys.readouterr().err


def test_a_sweep_is_started_by_one_process(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(recorded, monkeypatch, "-m", "seed=1,2") == 2
    assert "-m: a sweep is started by one process" in capsys.readouterr().err


def test_ctrl_c_leaves_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(config: dict[str, Any], place: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "experiment=smoke", prepare=interrupted) == 130
