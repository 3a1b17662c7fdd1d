"""The commands that a run ends with, as a shell reads them."""

import shlex
from pathlib import Path

import pytest

from ddpm.app import arguments, screens
from ddpm.app.run_directory import Place
from ddpm.training import checkpoints


@pytest.mark.parametrize("packages", [(), ("mylab",), ("mylab", "other.lab")])
def test_the_commands_admit_again_the_packages_that_the_run_was_built_from(packages: tuple, tmp_path: Path):
    directory = tmp_path / "出 力"
    (directory / "checkpoints").mkdir(parents=True)
    (directory / "checkpoints" / checkpoints.LAST).touch()
    record = {"metrics": {}, "wall_seconds": 1.0, "status": "finished", "step": 4}
    place = Place(directory, sweep=None, label=None, command=(), cwd=tmp_path, choices={}, overrides=())
    said = screens.last_screen(place, record, 4, {}, packages)
    commands = [line for line in said.splitlines() if "ckpt=" in line]
    assert len(commands) == 3
    for line in commands:
        typed = shlex.split(line[line.index("ckpt=") :])
        read = arguments.read(typed, "train")
        assert read.allowed == list(packages)
        assert read.value("ckpt") == "出 力"
