"""`--cfg job` shows the configuration that runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import accepted, composed, run_here


@pytest.fixture
def show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Exit code, what is printed, and what is said of a mistake."""
    monkeypatch.chdir(tmp_path)

    def shown(*words: str, program: str = "train") -> tuple[int, Any, str]:
        code = run_here(monkeypatch, program, *words, "--cfg", "job", prepare=accepted)
        said = capsys.readouterr()
        assert not list(tmp_path.glob("logs"))
        return code, yaml.safe_load(said.out), said.err

    return shown


def test_it_is_what_the_job_is_given(show):
    assert show("schedule=cosine", "optimizer.lr=1e-3")[1] == composed(
        "train", "schedule=cosine", "optimizer.lr=1e-3"
    )


def test_a_run_that_goes_on_shows_its_own(show, tmp_path: Path):
    own = composed("train", "schedule=cosine", "model.channels=16", "seed=7")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(own))
    code, values, _ = show("ckpt=run", "trainer.max_steps=9000")
    assert code == 0
    assert values["schedule"]["_target_"].endswith("cosine")
    assert (values["model"]["channels"], values["seed"]) == (16, 7)
    assert (values["ckpt"], values["trainer"]["max_steps"]) == ("run", 9000)


def test_what_is_left_out_is_not_shown(show):
    values = show("callbacks=none", "model=dit")[1]
    assert not values["callbacks"]
    assert "multipliers" not in values["model"]


def test_data_of_ones_own_shows_the_recipe_for_pictures(show, tmp_path: Path):
    (tmp_path / "own" / "data").mkdir(parents=True)
    (tmp_path / "own" / "data" / "mine.yaml").write_text(
        "defaults: [/loading@_here_]\n_target_: mine.Source\n"
    )
    words = ("--config-dir", "own", "data=mine", "allow_targets=[mine]")
    expected = composed("train", "data=folder", "data.path=x", "data.image_size=8")["trainer"]["max_steps"]
    assert show(*words)[1]["trainer"]["max_steps"] == expected


def test_a_part_of_it(show):
    assert show("--package", "model")[1] == composed("train")["model"]
    assert show("--package", "callbacks.samples")[1] == composed("train")["callbacks"]["samples"]
    code, _, error = show("--package", "modell")
    assert code == 2
    assert "--package modell: there is no such part" in error


def test_a_mistake_is_told(show):
    code, _, error = show("trainer.device=4")
    assert code == 2
    assert "did you mean trainer.devices?" in error


@pytest.mark.parametrize(
    ("program", "words", "missing"),
    [("sample", [], "ckpt"), ("train", ["data=folder"], "data.path")],
)
def test_what_is_missing_is_shown_as_missing(show, program: str, words: list[str], missing: str):
    code, values, _ = show(*words, program=program)
    for part in missing.split("."):
        values = values[part]
    assert (code, values) == (0, "???")


def test_of_a_sweep_it_is_the_first_job(show):
    values = show("-m", "schedule=cosine,linear")[1]
    assert values["schedule"]["_target_"].endswith("cosine")
