"""The words of a command line mean what a person typed: any script, blanks, brackets, quotes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import composed
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddpm.app import arguments, command_line
from ddpm.app.grammar import PATHS, quoted
from ddpm.app.groups import WITHIN
from ddpm.errors import UsageError

NAMES = [
    "图片",
    "صور",
    "😀",
    "cafe\u0301 é",  # combining letters stay as they are
    "a b",
    "[a]",
    "a=b",
    "a,b",
    "#1",
    "x#y",
    "a & b",
    "it's",
    'say "hi"',
    "~user",
    "{a: 1}",
    "a;b",
    "(x)",
    "$HOME",
    "100%",
    "*.tar",
    "-x",
    "@x",
    "a|b",
    "C:\\pictures\\",
    "ends\\",
    "a\\\\b",
    "123",
    "1e3",
    "true",
    " blank",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_taken_as_typed(name: str):
    for key in PATHS:
        assert arguments.read([f"{key}={name}"], "sample").value(key) == name
        if key not in WITHIN:  # which of train.py are groups
            assert arguments.read([f"++{key}=/x/{name}"], "train").value(key) == f"/x/{name}"


@pytest.mark.parametrize("name", ["图 片", "~user", "a=b,[c]", "ends\\"])
def test_it_reaches_the_configuration_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A relative one is below where the person stands."""
    monkeypatch.chdir(tmp_path)
    assert composed("train", "data=folder", f"data.path=/x/{name}")["data"]["path"] == f"/x/{name}"
    assert composed("train", "data=folder", f"data.path={name}")["data"]["path"] == str(tmp_path / name)
    paired = composed(
        "train", "data=folder", "data.path=/x", "condition=paired", f"data.condition.path={name}"
    )
    assert paired["data"]["condition"]["path"] == str(tmp_path / name)
    assert composed("sample", "ckpt=RUN", f"start={name}")["start"] == name
    assert composed("evaluate", f"ckpt={name}")["ckpt"] == name


def test_the_home_directory_is_found_behind_a_key(monkeypatch: pytest.MonkeyPatch):
    """A shell leaves `~` alone there."""
    monkeypatch.setenv("HOME", "/home/someone")
    found = composed("train", "data=folder", "data.path=~/图片")["data"]["path"]
    assert found == "/home/someone/图片"
    assert composed("train", "data=folder", "data.path=~")["data"]["path"] == "/home/someone"
    assert composed("sample", "ckpt=~/run 1", "n=3")["ckpt"] == "/home/someone/run 1"
    root = os.path.expanduser("~root")
    assert composed("train", "data=folder", "data.path=~root/x")["data"]["path"] == f"{root}/x"


@pytest.mark.parametrize("name", ["图 片", "صور", "😀", "it's", "50% (x)", "cafe\u0301"])
def test_names_are_taken_as_typed(name: str):
    assert composed("train", f"logger.wandb.name={name}")["logger"]["wandb"]["name"] == name
    assert composed("train", f"tags=[{name},plain]")["tags"] == [name, "plain"]
    assert composed("sample", "ckpt=RUN", f"labels=[{name},3]")["labels"] == [name, 3]


def test_what_is_quoted_already_and_what_is_a_list_stays_so():
    assert composed("train", "data=folder", 'data.path="/a b/c"')["data"]["path"] == "/a b/c"
    assert composed("train", "tags=['a, b',\"c\"]")["tags"] == ["a, b", "c"]
    assert composed("train", "model.multipliers=[1,2,2]")["model"]["multipliers"] == [1, 2, 2]
    assert composed("train", "tags=[]")["tags"] == []
    assert composed("train", "tags=null")["tags"] is None
    assert composed("train", "++seed=3", "+data.label_drop=0.1")["data"]["label_drop"] == 0.1


def test_a_number_is_of_the_kind_that_is_asked_for():
    config = composed("train", "trainer.max_steps=2e5", "logger.wandb.name=2026", "seed=1e3")
    assert config["trainer"]["max_steps"] == 200_000
    assert config["lr_schedule"]["total_steps"] == 200_000
    assert isinstance(config["trainer"]["max_steps"], int)
    assert config["logger"]["wandb"]["name"] == "2026"
    assert config["seed"] == 1000


def jobs(*words: str) -> list[dict]:
    found, multirun = command_line.checked(arguments.read(["-m", *words], "train"), "train")
    assert multirun
    return [job.values for job in found]


@pytest.mark.e2e
def test_a_sweep_runs_through_paths_names_and_globs():
    folder = ("data=folder", "data.image_size=8")
    assert [job["data"]["path"] for job in jobs(*folder, "data.path=/x/图,/x/a b,/x/[c]")] == [
        "/x/图",
        "/x/a b",
        "/x/[c]",
    ]
    assert [job["data"]["path"] for job in jobs(*folder, 'data.path="/x/a,b"')] == ["/x/a,b"]
    assert [job["tags"] for job in jobs("tags=[a],[b,c]")] == [["a"], ["b", "c"]]
    assert [job["seed"] for job in jobs("seed=range(1,4)")] == [1, 2, 3]
    assert len(jobs("weighting=glob(*,exclude=[hybrid,bound])")) == 5
    assert [sorted(job["logger"]) for job in jobs("logger=wandb,null")] == [["wandb"], []]
    assert len(jobs("schedule=linear,cosine", "model=tiny,small", "seed=1")) == 4


def test_a_sweep_runs_through_data_options_of_ones_own(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "defaults: [/loading, _self_]\n_target_: ddpm.data.sources.digits.Digits\n"
    )
    found = jobs("--config-dir", str(tmp_path), "data=digits,mine")
    assert [job["trainer"]["max_steps"] for job in found] == [1300, 200_000]


def test_hydra_is_given_the_recipe_of_data_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without it a sweep that swaps what a recipe chooses (`model=tiny`) is refused by Hydra."""
    (tmp_path / "data").mkdir()
    for name in ("mine", "yours"):
        (tmp_path / "data" / f"{name}.yaml").write_text(
            "defaults: [/loading, _self_]\n_target_: ddpm.data.sources.digits.Digits\n"
        )
    handed: list[arguments.Arguments] = []
    monkeypatch.setattr(command_line, "_hand_to_hydra", lambda task, given, program: handed.append(given))
    monkeypatch.chdir(tmp_path)
    expected = {"mine": True, "mine,yours": True, "digits": False, "digits,mine": False}
    for data, brings_none in expected.items():
        words = ["-m", "--config-dir", str(tmp_path), f"data={data}", "model=tiny", "seed=1,2"]
        read = arguments.read(words, "train")
        found, _ = command_line.checked(read, "train")
        command_line._sweep(read, "train", ["train.py"], found)
        assert ("recipe=pictures" in handed[-1].overrides) is brings_none


@pytest.mark.e2e
def test_a_sweep_in_a_yaml_is_read_and_overruled(tmp_path: Path):
    """By its own rules: keys that no yaml lists, and values as they are."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "table.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n"
        "      schedule: linear,cosine\n      logger.wandb.notes: 一,it's two\n"
    )

    def found(*typed: str) -> list[dict]:
        read = arguments.read(["--config-dir", str(tmp_path), "experiment=table", *typed], "train")
        jobs, multirun = command_line.checked(read, "train")
        assert multirun
        return [job.values for job in jobs]

    notes = [job["logger"]["wandb"]["notes"] for job in found()]
    assert notes == ["一", "it's two", "一", "it's two"]
    assert [job["schedule"]["_target_"].rpartition(".")[2] for job in found("schedule=sigmoid")] == [
        "sigmoid",
        "sigmoid",
    ]


@settings(max_examples=50, deadline=None)
@example("'")
@example("\\'")
@example("ends with \\")
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_quoting(text: str):
    (override,) = OverridesParser.create().parse_overrides([f"hydra.run.dir={quoted(text)}"])
    assert not override.is_sweep_override()
    assert override.value() == text


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r$"), min_size=1))
def test_any_path_is_read_as_it_is(text: str):
    """But for quotes around the whole, null, interpolations, and lists of runs."""
    if text[0] in "'\"~" or text.strip().lower() == "null" or (text[0] == "[" and text[-1] == "]"):
        return
    read = arguments.read([f"ckpt={text}"], "evaluate")
    assert read.value("ckpt") == text


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ("[a,b]", ["a", "b"]),
        ("[ a , ./b c ]", ["a", "./b c"]),
        ("""['a, b',"c]"]""", ["a, b", "c]"]),
        ("[x=1,[y],it's,123]", ["x=1", "[y]", "it's", "123"]),
        ("[~/图片,null]", ["/home/someone/图片", "null"]),
        ("[a]", ["a"]),
        ("x[a,b]", "x[a,b]"),
        ("a,b", "a,b"),
    ],
)
def test_runs_to_compare_are_a_list_of_paths_as_typed(
    typed: str, runs: list[str] | str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", "/home/someone")
    assert arguments.read([f"ckpt={typed}"], "evaluate").value("ckpt") == runs
    assert composed("evaluate", f"ckpt={typed}")["ckpt"] == ("a" if typed == "[a]" else runs)


def test_a_path_in_brackets_is_one_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "[a,b]").mkdir()
    monkeypatch.chdir(tmp_path)
    assert composed("evaluate", "ckpt=[a,b]")["ckpt"] == "[a,b]"


def test_a_sweep_runs_through_lists_of_runs():
    read = arguments.read(["-m", "ckpt=[a,b],[c,d]", "seed=1"], "evaluate")
    found, multirun = command_line.checked(read, "evaluate")
    assert multirun
    assert [job.values["ckpt"] for job in found] == [["a", "b"], ["c", "d"]]


def test_packages_are_admitted_by_words_only():
    read = arguments.read(["allow_targets=[mine,other.package]"], "train")
    assert read.allowed == ["mine", "other.package"]
    assert arguments.read(["allow_targets=mine"], "train").allowed == ["mine"]
    with pytest.raises(UsageError, match="must be a list of packages"):
        assert arguments.read(["allow_targets={a:1}"], "train").allowed


@pytest.mark.e2e
def test_how_the_program_was_started_is_found_again(tmp_path: Path):
    """`python -m ddpm train` and the script, from which further processes are started."""
    code = "from ddpm.app import invocation; print(invocation.program())"
    (tmp_path / "tried.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "tried.py", "x"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == str([str(tmp_path / "tried.py")])
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "package", "train"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.stdout.strip() == str(["-m", "package"]), done.stderr
