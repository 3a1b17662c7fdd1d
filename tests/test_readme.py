"""What README and docs/ promise: commands that the program takes, and links that lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, composed

from ddpm.app import arguments, command_line

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"\b(?:(train|sample|evaluate)\.py|ddpm (train|sample|evaluate|inspect)\b)")
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.splitlines():
                for command in line.split(" && "):
                    found += [command] if COMMAND.search(command) else []
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_every_command_is_taken(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As far as composing and checking go: runs need time, and some of them a network or four devices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN_DIR").mkdir()
    (tmp_path / "RUN_DIR" / "config.yaml").write_text(yaml.safe_dump(composed("train")))
    (tmp_path / "my_conf" / "schedule").mkdir(parents=True)
    (tmp_path / "my_conf/schedule/mine.yaml").write_text("_target_: mypackage.mine\n")
    found = COMMAND.search(command)
    words = shlex.split(command[found.end() :], comments=True)
    program = found[1] or found[2]
    jobs, multirun = command_line.checked(arguments.read(words, program), program)
    assert multirun == ("-m" in words)
    assert len(jobs) >= 1


def test_the_first_block_holds_the_two_commands():
    first = BLOCK.search((ROOT / "README.md").read_text()).group(1).splitlines()
    assert first == [
        "pip install -c constraints.txt -e . && python train.py",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_table_names_every_group_and_option():
    text = (ROOT / "README.md").read_text()
    data = {option.stem for option in (ROOT / "conf" / "data").glob("*.yaml")}
    for group in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{group.name}`"))
        for option in group.glob("*.yaml"):
            if group.name != "recipe" or option.stem not in data:
                assert f"`{option.stem}`" in row, f"{group.name}={option.stem} is not in the table"


def test_constraints_pin_the_torch_that_is_tested():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines[0].startswith("#")
    assert ".ci/pin" in lines[0]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines[1:])
