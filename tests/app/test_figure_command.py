"""ddpm figure, as typed: what it writes, where, and what it refuses."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import run_command
from PIL import Image

RUN = Path(__file__).parents[1] / "fixtures" / "run_0_1"
FEW = ("--sampler", "ddim", "--num-steps", "3", "--dpi", "40")


def figure(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The exit code of a command."""
    return run_command(monkeypatch, "figure", *words)


def copied(tmp_path: Path, name: str = "run") -> Path:
    shutil.copytree(RUN, tmp_path / name)
    return tmp_path / name


def test_a_figure_lies_in_the_runs_own_folder_and_its_path_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run = copied(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert figure(monkeypatch, "denoising", "run", "--n", "2", "--steps", "3", *FEW) == 0
    assert capsys.readouterr().out == "run/figures/drawn/denoising.png\n"
    with Image.open(run / "figures" / "drawn" / "denoising.png") as picture:
        assert picture.size[0] == pytest.approx(6.5 * 40, abs=12)


def test_a_figure_of_several_runs_lies_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    copied(tmp_path, "one")
    copied(tmp_path, "two")
    monkeypatch.chdir(tmp_path)
    assert figure(monkeypatch, "schedule", "one", "two", "--dpi", "40") == 0
    assert capsys.readouterr().out == "schedule.png\n"
    assert (tmp_path / "schedule.png").exists()
    assert not (tmp_path / "one" / "figures").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("denoise RUN", "denoise: there is no such figure; did you mean denoising?"),
        ("xyz RUN", "xyz: there is no such figure; there are forward, denoising"),
        ("schedule", "RUN_DIR"),
        ("forward nowhere", "nowhere: there is no such run directory or checkpoint file"),
        ("forward empty", "empty: holds no checkpoint; give a run directory or a .ckpt file"),
        ("loss empty", "empty: holds no metrics.csv, as a run directory does"),
        ("loss nowhere", "nowhere: there is no such run; check the spelling"),
        ("loss RUN --scale cubic", "--scale"),
        ("forward RUN RUN", "forward: is of one run, and 2 are named; of several are schedule and loss"),
        ("schedule RUN --n 3", "--n: is of forward, denoising, path, neighbours; leave it out for schedule"),
        ("forward RUN --sampler ddim", "--sampler: is of denoising, path, neighbours"),
        ("forward RUN --n 0", "0: must be a whole number of at least 1"),
        ("forward RUN --seed -1", "--seed"),
        ("forward RUN --width 0", "0: must be a number between 0.5 and 100"),
        ("forward RUN --width 90 --dpi 2000", "--dpi 2000: 90 inches would be more than 20,000 pixels"),
        ("forward RUN --out a.jpg", ".jpg is no kind of file for forward; there are .png, .svg, .pdf, .gif"),
        ("schedule RUN --out a.gif", ".gif is no kind of file for schedule; there are .png, .svg, .pdf"),
        ("forward RUN --out a", "no ending is no kind of file for forward"),
        ("forward RUN --out empty.png", "is a directory; name a file in it"),
        ("forward RUN --out file/a.png", "is no directory; name a file elsewhere with --out"),
        ("denoising RUN --sampler ddin", "sampler=ddin: there is no such option; there are ancestral, ddim"),
        ("denoising RUN --num-steps 9999", "sampler.num_steps=9999"),
        ("denoising RUN --labels cat", "this run was trained without classes"),
    ],
)
def test_a_mistake_ends_with_2_and_a_message_and_leaves_nothing(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.png").mkdir()
    (tmp_path / "file").touch()
    given = [str(RUN) if word == "RUN" else word for word in words.split()]
    if "--out" not in given and len(given) > 1:
        given += ["--out", "out.png"]
    before = sorted(path.name for path in tmp_path.iterdir())
    assert figure(monkeypatch, *given) == 2
    said = capsys.readouterr().err
    assert re.sub(r"\s+", " ", message) in re.sub(r"\s+", " ", said)
    assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not list((tmp_path / "empty").iterdir())


def test_a_run_that_fails_leaves_the_earlier_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    Path("out.png").write_bytes(b"earlier")

    def full(*arguments: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    assert figure(monkeypatch, "schedule", str(RUN), "--out", "out.png") == 2
    assert "out.png: cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert Path("out.png").read_bytes() == b"earlier"


def test_a_run_without_a_checkpoint_still_has_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    run = copied(tmp_path)
    shutil.rmtree(run / "checkpoints")
    monkeypatch.chdir(tmp_path)
    assert figure(monkeypatch, "loss", "run", "--out", "loss.svg") == 0
    assert f"the loss over t is left out: {run}: is a run without a checkpoint" in capsys.readouterr().err
    assert "<svg" in Path("loss.svg").read_text()
    assert figure(monkeypatch, "loss", "run", "--by-t", "--out", "again.svg") == 2
    assert f"--by-t: {run}: is a run without a checkpoint" in capsys.readouterr().err
    assert not Path("again.svg").exists()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "forward --n 3 --steps 4",
        "forward --n 12 --out film.gif --steps 5 --dark",
        "denoising --labels 3 name:7 --weights raw --sampler ddim --num-steps 4",
        "denoising --out film.gif --steps 3 --n 11",
        "schedule --out schedule.pdf --dark",
        "path --n 2 --num-steps 6",
        "neighbours --n 3 --k 2 --sampler ddim --num-steps 2",
    ],
)
def test_every_figure_is_drawn_of_a_run_with_classes(
    words: str, conditional_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    name, *options = words.split()
    out = [] if "--out" in options else ["--out", "figure.png"]
    assert figure(monkeypatch, name, str(conditional_run), *options, *out, "--dpi", "60") == 0
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size > 1000


@pytest.mark.e2e
@pytest.mark.slow
def test_the_loss_of_a_run_is_drawn_by_the_program(smoke_run: Path, tmp_path: Path):
    command = [sys.executable, "-m", "ddpm", "figure", "loss", str(smoke_run), "--out", "loss.png"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert process.stdout == "loss.png\n"
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (1300, 520)
