"""What a run prints at its end can be pasted into a shell, wherever the run lies."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, run_here

from ddpm.app import arguments, command_line, screens
from ddpm.app.build import describe
from ddpm.app.run_directory import Place
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.runtime.computing import Computing
from ddpm.training.checkpoints import LAST

DIRECTORIES = [
    "实验 1/run",
    "تجربة/it's (a) run & more",
    "😀 'x' \"y\"",
    "a#b=[c],{d}",
    "ends\\",
    "~user/$HOME",
    "~root",
    "-x",
]


@pytest.fixture(autouse=True)
def program(monkeypatch: pytest.MonkeyPatch) -> None:
    """The screens are those of train.py, where it lies."""
    monkeypatch.setattr(sys, "argv", [str(ROOT / "train.py")])


def test_offline_directories_of_several_starts_are_uploaded_by_one_command(tmp_path: Path):
    run = tmp_path / "a run"
    record: dict[str, Any] = {
        "metrics": {}, "wall_seconds": 3.0, "status": "finished", "step": 20, "wandb_id": "id",
    }  # fmt: skip
    for name in ("offline-run-1-id", "offline-run-2-id", "other", "offline-run-3-another"):
        (run / "wandb" / name).mkdir(parents=True)
    record["wandb_offline"] = [f"wandb/{name}" for name in ("offline-run-1-id", "offline-run-0-id")]
    said = screens.last_screen(Place(run, cwd=tmp_path), record, 20, {})
    assert "  dashboard     wandb sync 'a run/wandb/offline-run-1-id'\n" in f"{said}\n"
    record["wandb_offline"] += ["wandb/offline-run-2-id", "wandb/other", "wandb/offline-run-3-another"]
    said = screens.last_screen(Place(run, cwd=tmp_path), record, 20, {})
    two = "'a run/wandb/offline-run-1-id' 'a run/wandb/offline-run-2-id'"
    assert f"  dashboard     wandb sync {two}\n" in f"{said}\n"


def screen(directory: Path, cwd: Path, *, step: int = 20, max_steps: int = 20, **lr_schedule: int) -> str:
    """The last screen of a run that left a checkpoint."""
    (directory / "checkpoints").mkdir(parents=True, exist_ok=True)
    (directory / "checkpoints" / LAST).touch()
    record = {"metrics": {"val/loss": 0.5}, "wall_seconds": 3.0, "status": "finished", "step": step}
    return screens.last_screen(Place(directory, cwd=cwd), record, max_steps, dict(lr_schedule))


def commands(text: str) -> dict[str, list[str]]:
    """The words of each command on a screen, as a shell would hand them over, by the command's name."""
    found = {}
    for line in text.splitlines():
        if match := re.search(r"\bpython (?:-m ddpm |\S*/)?(\w+)(?:\.py)? (.*)$", line):
            found[match[1]] = shlex.split(match[2])
    return found


@pytest.mark.parametrize("name", DIRECTORIES)
def test_commands_lead_back_to_the_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / name
    found = commands(screen(directory, tmp_path))
    assert found.keys() == {"sample", "evaluate", "report", "train"}
    (reported,) = found.pop("report")
    assert Path(os.path.expanduser(reported)).absolute() == directory
    (directory / "config.yaml").write_text("trainer: {}\n")
    for program, words in found.items():
        read = arguments.read(words, program)
        path = read.value("ckpt")
        assert isinstance(path, str)
        assert Path(os.path.expanduser(path)).absolute() == directory, words


def test_a_run_that_is_not_below_is_named_whole(tmp_path: Path):
    found = commands(screen(tmp_path / "runs" / "a b", tmp_path / "elsewhere"))
    assert found["sample"] == [f"ckpt={tmp_path}/runs/a b"]


def test_what_goes_on_is_said_by_where_the_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("train.py", "sample.py", "evaluate.py"):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, "argv", ["train.py"])
    directory = tmp_path / "run"
    assert "continue it   python train.py ckpt=run" in screen(directory, tmp_path, step=7)
    assert "train on      python train.py ckpt=run trainer.max_steps=40\n" in (
        screen(directory, tmp_path) + "\n"
    )
    named = replace(Place(directory, cwd=tmp_path), found_again=True)
    record = {"metrics": {}, "wall_seconds": 3.0, "status": "interrupted", "step": 20, "why": "SIGTERM"}
    said = screens.last_screen(named, record, 20, {})
    assert "because       SIGTERM" in said
    assert "continue it   the same command again\n  elsewhere     python train.py ckpt=run\n" in said
    ended = screen(directory, tmp_path, total_steps=20)
    assert "train on      python train.py ckpt=run trainer.max_steps=40 lr_schedule=constant" in ended


def test_a_run_without_a_checkpoint_offers_none(tmp_path: Path):
    (tmp_path / "run").mkdir()
    record = {"metrics": {}, "wall_seconds": 3.0, "status": "failed", "step": 0, "why": "an error"}
    said = screens.last_screen(Place(tmp_path / "run", cwd=tmp_path), record, 20, {})
    assert "ckpt=" not in said
    assert "because       an error" in said


def test_programs_are_named_from_where_the_person_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a clone").mkdir()
    for name in ("train.py", "sample.py"):
        (tmp_path / "a clone" / name).touch()
    standing = tmp_path / "elsewhere"
    standing.mkdir()
    monkeypatch.setattr(sys, "argv", ["../a clone/train.py"])
    monkeypatch.chdir(tmp_path)  # as hydra.job.chdir does
    said = screen(standing / "run", standing)
    (script,) = shlex.split(re.search(r"sample it +python (.*) ckpt=run", said)[1])
    assert (standing / script).resolve() == tmp_path / "a clone" / "sample.py"
    assert "measure it    python -m ddpm evaluate ckpt=run" in said, "there is no such script"


class Told:
    """A source that says what it understood."""

    def read(self) -> DataSet:
        images = ImageSet(np.zeros((8, 1, 9, 9), np.uint8), np.arange(8) % 2)
        said = ("images: 8 to train on (the folder train), 0 held out", "classes: 2 (the folders): 猫, dog")
        return DataSet(images, images.subset(slice(0)), ["猫", "dog"], understood=said, window=(8, 8))


def test_what_was_understood_of_the_data_stands_at_the_start_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    device = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(strategy=device, max_steps=3, world_size=1)
    module: Any = SimpleNamespace(num_parameters=5, config=None)
    data = ImageDataModule(Told())
    assert data.image_shape == (1, 8, 8)
    card = screens.card(trainer, module, data, Computing("32-true", False, False))
    screens.announce(card, trainer, module, Place(tmp_path, cwd=tmp_path))
    assert caplog.messages[1:4] == [
        "images         8 to train on (the folder train), 0 held out",
        "classes        2 (the folders): 猫, dog",
        "size           8x8, grey, in training another part of each image every time",
    ]
    assert caplog.text.count("the folder train") == 1
    assert describe(data)["understood"] == list(Told().read().understood)


@pytest.mark.e2e
def test_a_screen_is_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    """Of a run in a directory with a blank, a quote and another script, where it also worked."""
    monkeypatch.chdir(tmp_path)
    name = "实验 1/it's run"
    smoke = (
        "experiment=smoke", "trainer.devices=1", "trainer.accelerator=cpu", "trainer.max_steps=2",
        "callbacks.samples.every_n_steps=1", "callbacks.samples.n=1",
    )  # fmt: skip
    assert run_here(monkeypatch, "train", *smoke, f"hydra.run.dir={name}", "hydra.job.chdir=true") == 0
    assert Path.cwd() == tmp_path
    said = capsys.readouterr().out
    for title in ("everything", "samples", "checkpoint"):
        (path,) = shlex.split(re.search(rf"^  {title} +(.*)$", said, re.MULTILINE)[1])
        assert (tmp_path / path).exists(), path
    sync = shlex.split(re.search(r"^  dashboard +(.*)$", said, re.MULTILINE)[1])
    assert sync[:2] == ["wandb", "sync"]
    assert (tmp_path / sync[2]).is_dir()

    on = commands(said)["train"]
    found, _ = command_line.checked(arguments.read(on, "train"), "train")
    assert found[0].values["trainer"]["max_steps"] == 4
    assert found[0].values["callbacks"]["samples"]["n"] == 1, "its own configuration"

    line = re.search(r"^  sample it +(.*)$", said, re.MULTILINE)[1]
    shell = f"{line} n=1 sampler=ddim sampler.num_steps=2 out='out 图'"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out 图" / "samples.npz").exists()


def test_a_table_says_how_values_began_what_was_best_and_how_they_ended(tmp_path: Path):
    (tmp_path / "metrics.csv").write_text(
        "step,train/loss,val/loss,perf/mfu,samples/fid,samples/pr/precision,samples/inception_score,"
        "samples/nearest,samples/mean_0\n100,0.9,,0.5,,,,,\n200,0.5,0.6,0.5,30.0,0.25,1.5,1.5,0.1\n"
        "300,0.25,0.5,0.5,20.0,0.75,7.5,0.5,0.1\n400,0.75,0.55,0.5,25.0,0.5,7.0,0.9,0.1\n"
    )
    measured = {
        "samples/fid": "samples/fid5k_train_inception_ema_ddim50",
        "samples/pr/precision": "samples/pr/precision5k_train_inception_ema_ddim50",
        "samples/inception_score": "samples/is5k_inception_ema_ddim50",
        "samples/nearest": "samples/nearest5k_train_pixels_ema_ddim50",
    }
    assert screens.metrics_table(tmp_path, measured) == [
        "                           first     best  at step     last",
        "train/loss                0.9000   0.2500      300   0.7500",
        "val/loss                  0.6000   0.5000      300   0.5500",
        "samples/fid              30.0000  20.0000      300  25.0000",
        "samples/pr/precision      0.2500   0.7500      300   0.5000",
        "samples/inception_score   1.5000   7.5000      300   7.0000",
        "samples/nearest           1.5000                     0.9000",
    ]
    assert screens.metrics_table(tmp_path / "none", {}) == []
    (tmp_path / "metrics.csv").write_bytes(b"\xff\0")
    assert screens.metrics_table(tmp_path, {}) == []
