"""What README and docs/ promise: commands that the program takes, and links that lead somewhere."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, blocks, composed, files_on

from ddpm.__main__ import _parser
from ddpm.app import arguments, command_line

DOCS = ROOT / "docs"
PAGES = [
    *sorted(page for page in ROOT.glob("*.md") if page.name != "README.zh.md"),  # its commands are README's
    ROOT / "logs" / "README.md",
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "howto").glob("*.md")),
    *sorted((DOCS / "tutorial").glob("*.md")),
]
COMPOSED = re.compile(
    r"(?:(?:^| )(train|sample|evaluate)\.py|\bddpm (train|sample|evaluate|inspect|encode))(?= |$)"
)
FLAGGED = re.compile(r"^(?:python -m )?ddpm (?=(?:doctor|cache|sweep|figure|ema|export|import|workspace) )")


def commands(kind: re.Pattern[str], pages: Sequence[Path] = PAGES) -> list[str]:
    lines = (line for page in pages for block in blocks(page) for line in block.splitlines())
    parts = (part for line in lines if not line.startswith("#") for part in line.split(" && "))
    return sorted({part.removesuffix(" &") for part in parts if kind.search(part)})


EVERYDAY = commands(COMPOSED, [ROOT / "README.md"])
"""The commands of the other pages are slow forms."""


@pytest.mark.e2e
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=() if command in EVERYDAY else pytest.mark.slow)
        for command in commands(COMPOSED)
    ],
)
def test_every_command_is_taken(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As far as composing and checking go: runs need time, and some of them a network or four devices."""
    monkeypatch.chdir(tmp_path)
    for run in ("RUN_DIR", "GUIDE_DIR"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "config.yaml").write_text(yaml.safe_dump(composed("train")))
    shown = [files_on(DOCS / page) for page in ("extending.md", "tutorial/paper_table.md")]
    for path, text in [file for files in shown for file in files.items()]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = COMPOSED.search(command)
    words = shlex.split(command[found.end() :], comments=True)
    program = found[1] or found[2]
    read = arguments.read(words, program)
    jobs, multirun = command_line.checked(read, program)
    groups = {word.partition("=")[0] for word in words}  # a choice of rows, or a search, is of many jobs
    assert multirun == ("-m" in words or not groups.isdisjoint({"sweep", "hparams_search"}))
    assert len(jobs) >= 1


@pytest.mark.parametrize("command", commands(FLAGGED))
def test_every_command_with_flags_is_taken(command: str):
    words = shlex.split(command[FLAGGED.search(command).end() :], comments=True)
    assert _parser().parse_args(words).command == words[0]


def test_the_first_block_holds_the_two_commands():
    first = blocks(ROOT / "README.md")[0].splitlines()
    assert first == [
        "pip install -c constraints.txt -e . && python train.py",
        'pip install -c constraints.txt -e ".[test]" && pytest',
    ]


@pytest.mark.parametrize(
    "page",
    sorted({*PAGES, *ROOT.glob("*.md"), *DOCS.rglob("*.md")}),
    ids=lambda page: str(page.relative_to(ROOT)),
)
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
