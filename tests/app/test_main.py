"""python -m ddpm COMMAND, as typed."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_here
from PIL import Image

import ddpm
from ddpm import __main__


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    process = [sys.executable, "-m", "ddpm", *arguments]
    return subprocess.run(process, cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.e2e
@pytest.mark.slow
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


@pytest.mark.e2e
def test_a_data_set_is_inspected(tmp_path: Path):
    outcome = command("inspect", "data=digits", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "1,437 to train on, 360 held out" in outcome.stdout
    assert len(list(tmp_path.glob("logs/inspect/*/contact_sheet.png"))) == 1


@pytest.mark.e2e
@pytest.mark.slow
def test_parts_of_other_classes_end_with_2_and_leave_nothing(tmp_path: Path):
    for part, name in (("train", "cat"), ("train", "dog"), ("test", "cow")):
        (tmp_path / "set" / part / name).mkdir(parents=True)
        for level in range(2):
            Image.new("L", (8, 8), level).save(tmp_path / "set" / part / name / f"{level}.png")
    (tmp_path / "set" / "test" / "cat").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "set" / "test" / "cat" / "0.png")
    outcome = command("inspect", "data=folder", "data.path=set", "data.image_size=8", cwd=tmp_path)
    assert outcome.returncode == 2
    assert "the folder test/ holds classes that the folder train/ lacks: cow; hold out" in outcome.stderr
    assert "data.validation_split=none" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    words = ["data=folder", "data.path=set", "data.image_size=8", "data.validation_split=none"]
    outcome = command("inspect", *words, cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "(the folder train/; the folder test/ is not used)" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "nowhere", "out"], "nowhere"),
        (["import", "nowhere", "out"], "nowhere"),
        (["doctor", "--config-dir", "nowhere"], "there is no such directory"),
        (["cache", "clear", "--dir", __file__], f"--dir {__file__}: is no directory"),
        (["sing"], "invalid choice"),
        ([], "COMMAND"),
    ],
)
def test_mistakes_end_with_2_and_a_message(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ddpm", *arguments])
    with pytest.raises(SystemExit) as exit_:
        __main__.main()
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("data=folder", "data.path is missing"),
        ("data=digit", "did you mean digits?"),
        ("data=folder data.path=/nope data.image_size=8", "data.path=/nope: there is no such folder"),
        ("data=npz data.path=/nope/图.npz", "data.path=/nope/图.npz: there is no such file"),
        ("data=archive data.path=empty.zip", "empty.zip"),
        ("data=stream data.path=/nope", "data.path=/nope"),
        ("data=null", "data: cannot be left out"),
        ("ckpt=run", "ckpt: there is no such key; valid here: allow_targets, data, seed"),
        ("data=digits data.dequantize=3", "data.dequantize=3: must be true or false"),
    ],
)
def test_a_data_set_that_there_is_not_is_told(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.zip").touch()
    assert run_here(monkeypatch, "inspect", *arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty.zip"]


@pytest.mark.e2e
def test_the_cache_is_listed_and_cleared(tmp_path: Path):
    for action in ("list", "clear"):
        outcome = command("cache", action, "--dir", str(tmp_path / "cache"), cwd=tmp_path)
        assert outcome.returncode == 0, outcome.stderr
