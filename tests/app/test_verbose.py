"""What the terminal says is as much as was asked for; what went wrong and what came out is always said."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import run_here

from ddpm.app import terminal
from ddpm.app.schema import RANGES
from ddpm.runtime import progress
from ddpm.runtime.progress import Countdown


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Logging, whoever has set it up, and the bars."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    terminal.set_up(None, leader=True)
    for handler in list(root.handlers):
        root.removeHandler(handler)
    for handler in before:
        root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)


def said(verbose: str, log_file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """On standard error, and in the file."""
    terminal.set_up(log_file, leader=True, verbose=verbose)
    capsys.readouterr()
    ours, theirs = logging.getLogger("ddpm.x"), logging.getLogger("lightning.pytorch")
    ours.debug("a row")
    ours.info("how far")
    theirs.info("a hint")
    ours.warning("a flaw")
    ours.error("the end")
    with Countdown("sampling", 3) as countdown:
        countdown._last_line -= 60
        countdown.advance(1)
    return capsys.readouterr().err, log_file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("verbose", "words"),
    [
        ("quiet", ["flaw", "end"]),
        ("normal", ["how far", "flaw", "end", "sampling 1/3"]),
        ("verbose", ["row", "how far", "hint", "flaw", "end", "sampling 1/3"]),
    ],
)
def test_as_much_as_was_asked_for(
    verbose: str,
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(progress.console, "_file", None)  # to what stands for standard error here
    on_terminal, in_file = said(verbose, tmp_path / "train.log", capsys)
    every = ["row", "how far", "hint", "flaw", "end", "sampling 1/3"]
    assert [word for word in every if word in on_terminal] == words
    assert "how far" in in_file
    assert "sampling 1/3" in in_file
    assert "a row" not in in_file


def test_another_word_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    assert run_here(monkeypatch, "train", "verbose=loud") == 2
    assert "verbose=loud: must be quiet or normal or verbose" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    judge: Callable[[object], str | None] = RANGES["verbose"]
    assert [judge(word) for word in ("quiet", "normal", "verbose")] == [None] * 3
