"""Programs whose disk is full: what was asked for is refused in one message, and what trains goes on."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from conftest import run_here

from ddpm.app.run_record import RunRecord, write_config
from ddpm.runtime import writing


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    writing._kept.clear()


@pytest.fixture
def fill(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Refuses from now on to keep a file of some name."""

    def refuse(name: str) -> None:
        fsync = os.fsync

        def full(file: int) -> None:
            if name in os.readlink(f"/proc/self/fd/{file}"):
                raise OSError(errno.ENOSPC, "No space left on device")
            fsync(file)

        monkeypatch.setattr(os, "fsync", full)

    return refuse


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize(
    ("program", "words", "file"),
    [
        ("sample", ("n=2",), "samples.npz"),
        ("sample", ("n=2",), "pieces/images/00000000-00000002.npz"),
        ("sample", ("n=2",), "grid.png"),
        ("evaluate", ("metrics.nll.num_steps=2", "metrics.nll.n=2"), "metrics.json"),
        ("inspect", ("data=digits",), "contact_sheet.png"),
    ],
)
def test_what_was_asked_for_is_refused_in_one_message(
    program: str,
    words: tuple[str, ...],
    file: str,
    conditional_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fill: Callable[[str], None],
):
    monkeypatch.chdir(tmp_path)
    fill(f".{Path(file).stem}.part")
    if program != "inspect":
        words = (*words, f"ckpt={conditional_run}", "trainer.accelerator=cpu")
    assert run_here(monkeypatch, program, *words, f"hydra.run.dir={tmp_path / 'out'}") == 1
    said = capsys.readouterr().err
    what = rf"(\w+ failed: )?{tmp_path / 'out' / file}"
    assert re.search(rf"error: {what}: cannot be written \(No space left on device\)", said)
    assert "Traceback" not in said
    assert file not in names(tmp_path / "out")
    assert not [name for name in names(tmp_path / "out") if ".part" in name]


def test_record_and_configuration_are_written_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    config = {"seed": 3}

    def full(file: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        write_config(tmp_path, config)
        record = RunRecord(tmp_path, {})
        assert names(tmp_path) == set()
    assert len(caplog.messages) == 3  # at each attempt, the second of which is about both
    record.end("finished", step=1)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == config
    assert '"status": "finished"' in (tmp_path / "run.json").read_text()
    assert names(tmp_path) == {"config.yaml", "run.json"}
