"""sample.py refuses what it cannot do, with one message and nothing left behind."""

import re
import sys
from pathlib import Path

import pytest

import sample
from ddpm.app import command_line

MISTAKES = {
    "n=0": r"n=0: must be at least 1",
    "n=many": r"n=many: must be int",
    "n=true": r"n=True: must be int",
    "seed=-1": r"seed=-1: must be at least 0",
    "weights=best": r"weights=best: must be ema or raw",
    "sampler=ddim sampler.num_steps=5000": r"sampler\.num_steps=5000",
    "sampler.num_steps=5": r"sampler\.num_steps: choose a sampler first",
    "sampler=dddim": r"sampler=dddim: there is no such option; did you mean ddim",
    "device=toaster": r"device=toaster: ",
    "number=3": r"number: there is no such key",
    "ckpt=nowhere": r"ckpt=.*nowhere: there is no such run directory",
    "out=.": r"holds samples\.npz of another run already",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_told(
    arguments: str,
    smoke_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples.npz").touch()
    monkeypatch.setattr(sys, "argv", ["sample.py", f"ckpt={smoke_run}", *arguments.split()])
    with pytest.raises(SystemExit) as exit_:
        command_line.run(sample.prepare, "sample")
    said = capsys.readouterr().err
    assert exit_.value.code == 2, said
    assert re.search(MISTAKES[arguments], said), said
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


def test_a_missing_checkpoint_is_asked_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys, "argv", ["sample.py"])
    with pytest.raises(SystemExit):
        command_line.run(sample.prepare, "sample")
    assert "ckpt is missing: give it as ckpt=VALUE" in capsys.readouterr().err
