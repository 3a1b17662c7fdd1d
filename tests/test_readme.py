"""What README and docs/ promise: commands that the program takes, and links that lead somewhere."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ddpm.app import command_line

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text()):
            for line in block.splitlines():
                for command in line.split(" && "):
                    found += [command] if re.search(r"\b(train|sample|evaluate)\.py\b", command) else []
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_every_command_is_taken(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As far as composing and checking go: runs need time, and some of them a network or four devices."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN_DIR").mkdir()
    (tmp_path / "RUN_DIR" / "config.yaml").write_text("defaults: [train]\n")
    (tmp_path / "my_conf" / "schedule").mkdir(parents=True)
    (tmp_path / "my_conf/schedule/mine.yaml").write_text("_target_: mypackage.mine\n")
    script, *arguments = shlex.split(command[re.search(r"\w+\.py", command).start() :])
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    jobs, multirun = command_line.checked(script.removesuffix(".py"))
    assert multirun == ("-m" in arguments)
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
    for group in sorted(path for path in (ROOT / "conf").iterdir() if path.is_dir()):
        if group.name in ("trainer", "callbacks"):
            continue
        row = next(line for line in text.splitlines() if line.startswith("|") and f"`{group.name}`" in line)
        for option in group.glob("*.yaml"):
            assert f"`{option.stem}`" in row, f"{group.name}={option.stem} is not in the table"


def test_constraints_pin_the_torch_that_is_tested():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines[0].startswith("#")
    assert ".ci/pin" in lines[0]
    assert "torch==2.13.0" in lines
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines[1:])
