"""Checkpoint files: whole or not there, harmless to load, and a damaged one has a predecessor."""

import logging
import os
import pickle
from pathlib import Path

import pytest
import torch

from ddpm.training.checkpoints import AtomicCheckpointIO, CheckpointError, find, load


def content(step: int) -> dict:
    return {"state_dict": {"w": torch.ones(1000)}, "ema": {}, "config": {"a": 1}, "global_step": step}


def save(directory: Path, step: int) -> Path:
    path = directory / "checkpoints" / f"step_{step:08d}.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(step), path)
    return path


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = save(tmp_path, 1)
    before = path.read_bytes()

    def half_a_write(checkpoint: object, file: object) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", half_a_write)
    with pytest.raises(OSError, match="disk full"):
        AtomicCheckpointIO().save_checkpoint(content(2), path)
    assert path.read_bytes() == before
    assert [file.suffix for file in path.parent.iterdir() if not file.name.startswith(".")] == [".ckpt"]


def test_the_newest_whole_checkpoint_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    for step in (5, 10):
        newest = save(tmp_path, step)
    os.link(newest, newest.with_name("last.ckpt"))
    assert find(tmp_path)[1]["global_step"] == 10
    assert find(newest.parent)[1]["global_step"] == 10
    assert find(newest)[1]["global_step"] == 10
    newest.write_bytes(newest.read_bytes()[:500])  # both names of the file
    with caplog.at_level(logging.WARNING):
        path, checkpoint = find(tmp_path)
    assert checkpoint["global_step"] == 5
    assert path.name == "step_00000005.ckpt"
    assert "falling back to" in caplog.text


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "other"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str):
    path = save(tmp_path, 5)
    if damage == "other":
        torch.save({"weights": torch.ones(3)}, path)
    else:
        path.write_bytes({"truncated": path.read_bytes()[:-300], "empty": b"", "text": b"hello\n"}[damage])
    with pytest.raises(
        CheckpointError, match=r"ckpt=.*step_00000005.ckpt: (cannot be read|is not a checkpoint)"
    ):
        find(path)
    with pytest.raises(CheckpointError, match="step_00000005"):
        find(tmp_path)


def test_nothing_there_is_told(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such run directory"):
        find(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        find(tmp_path)


class Mischief:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch mischief",))


def test_a_strangers_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    torch.save(content(1) | {"config": Mischief()}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)
    path.write_bytes(pickle.dumps(Mischief()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(path)
    assert not (tmp_path / "mischief").exists()
