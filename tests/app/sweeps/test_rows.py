"""Sweeps that list their rows."""

from pathlib import Path

import pytest
from conftest import ROOT, composed, run_here, run_program

from ddpm.app import arguments, command_line
from ddpm.app.sweeps import record
from ddpm.app.sweeps.rows import with_rows

SWEEPS = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml"))
OF_A_RUN = {"samplers"}
"""Sweeps of sample.py."""

BITS_PER_DIM = {"_target_": "ddpm.evaluation.bits_per_dim.BitsPerDim", "n": None, "num_steps": 50}


def jobs(*words: str, program: str = "train") -> list[dict[str, object]]:
    found, multirun = command_line.checked(arguments.read(words, program), program)
    assert multirun
    return [job.values for job in found]


def test_each_row_for_each_job_and_what_is_typed_holds():
    rows = [("a=1", "++b=2"), ("a=3",)]
    assert with_rows([("c=5",)], rows) == [("a=1", "++b=2", "c=5"), ("a=3", "c=5")]
    assert with_rows([("c=5",), ("c=6",)], rows)[2:] == [("a=1", "++b=2", "c=6"), ("a=3", "c=6")]
    assert with_rows([("b=7",)], rows) == [("a=1", "b=7"), ("a=3", "b=7")]
    assert with_rows([("++a=7", "b=0")], rows) == [("++a=7", "b=0")], "rows that are alike are one"
    assert with_rows([("c=5",)], []) == [("c=5",)]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_file_composes_different_runs(name: str):
    of_a_run = name in OF_A_RUN
    found = jobs(f"sweep={name}", *["ckpt=x"] * of_a_run, program="sample" if of_a_run else "train")
    assert len(found) > 3
    assert all(one != other for i, one in enumerate(found) for other in found[:i])


def test_the_rows_of_the_paper():
    found = jobs("-m", "sweep=paper_table2", "seed=0,1", "experiment=smoke")
    assert len(found) == 12
    keys = ("objective", "variance", "weighting")
    targets = [tuple(job[key]["_target_"].rpartition(".")[2] for key in keys) for job in found[:6]]
    assert len(set(targets)) == 6
    assert targets[-1] == ("Epsilon", "FixedLarge", "Simple")
    assert [job["seed"] for job in found] == [0] * 6 + [1] * 6
    last, alone = dict(found[5]), composed("train", "experiment=smoke", "callbacks=default")
    callbacks = last.pop("callbacks")
    quality = callbacks.pop("quality")
    assert (quality["every_n_steps"], quality["n"]) == (alone["trainer"]["max_steps"], 2000)
    assert callbacks == {**alone.pop("callbacks"), "bits_per_dim": BITS_PER_DIM}
    assert {**last, "allow_targets": None} == {**alone, "allow_targets": None}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("[]", "a sweep of no jobs is none"),
        ("3", "In 'sweep/mine': ValidationError"),
        ("[a=1]", "In 'sweep/mine': ValidationError"),
        ("[[3]]", "In 'sweep/mine': ValidationError"),
        ("[['schedule=linear,cosine']]", "a row takes one value"),
        ("[['schedule=linaer']]", "linaer"),
        ("[['trainer.max_stepps=3']]", "max_stepps"),
    ],
)
def test_a_row_that_is_none_is_told(
    rows: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    (tmp_path / "own" / "sweep" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: rows\n"
        f"hydra:\n  mode: MULTIRUN\n  sweeper:\n    rows: {rows}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "--config-dir", "own", "-m", "sweep=mine") == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.slow
@pytest.mark.e2e
def test_they_run(tmp_path: Path):
    """The first and the last row of one of the files."""
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    lines = (ROOT / "conf" / "sweep" / "paper_table2.yaml").read_text().splitlines(keepends=True)
    (tmp_path / "own" / "sweep" / "two.yaml").write_text("".join([*lines[:-5], lines[-1]]))
    short = ("experiment=smoke", "trainer.devices=1", "trainer.max_steps=2", "trainer.val_check_interval=2")
    outcome = run_program(
        "train.py", "--config-dir", "own", "sweep=two", *short, "callbacks.samples=null",
        "callbacks.quality=null", "logger=none", "hydra.sweep.dir=swept", "hydra.launcher.n_jobs=2",
        cwd=tmp_path,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.said
    found = record.read(tmp_path / "swept").jobs
    assert [job.status for job in found] == ["finished"] * 2
    assert {key for own in record.differing(found).values() for key in own} == {
        "objective", "variance", "weighting",
    }  # fmt: skip
