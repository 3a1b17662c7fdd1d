"""Checkpoints are found newest first, and what is none is refused by name."""

import logging
import os
import pickle
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from ddpm.training.checkpoints import LAYOUT, CheckpointError, find, guarded_load, load, write
from ddpm.training.checkpoints.layout import LAYOUT_OF_WHOLE


def content(step: int) -> dict:
    return {"state_dict": {"w": torch.ones(1000)}, "ema": {}, "config": {"a": 1}, "global_step": step}


def save(directory: Path, step: int) -> Path:
    path = directory / "checkpoints" / f"step_{step:08d}.ckpt"
    write(content(step), path)
    return path


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
    assert caplog.text.count("cannot be read") == 1


def test_a_checkpoint_without_its_other_name_is_the_newest(tmp_path: Path):
    """A run was killed between the two."""
    before, newest = save(tmp_path, 5), save(tmp_path, 10)
    os.link(before, before.with_name("last.ckpt"))
    assert find(tmp_path)[0] == newest
    before.with_name("last.ckpt").unlink()
    shutil.copy2(before, before.with_name("last.ckpt"))  # where there are no hard links
    assert find(tmp_path)[0] == newest
    newest.unlink()
    assert find(tmp_path)[1]["global_step"] == 5


def test_what_a_run_does_not_number_is_not_taken_for_it(tmp_path: Path):
    step_5 = save(tmp_path, 5)
    for name in ("best.ckpt", "step_00000009_good.ckpt", ".step_00000010.ckpt.part"):
        write(content(9), step_5.with_name(name))
    assert find(tmp_path)[0] == step_5


def test_layouts_of_today_and_before_are_read(tmp_path: Path):
    path = save(tmp_path, 5)
    assert torch.load(path, weights_only=True)["layout"] == LAYOUT_OF_WHOLE
    torch.save(content(5), path)  # as version 0.1 did, and a person who changes one
    assert load(path)["global_step"] == 5
    torch.save({**content(5), "layout": LAYOUT + 1}, path)
    with pytest.raises(CheckpointError, match=r"step_00000005\.ckpt: was written by a newer version"):
        load(path)


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


def test_what_multi_step_lr_keeps_is_read(tmp_path: Path):
    """It counts in a Counter, which earlier versions wrote as one."""
    torch.save({"milestones": Counter([2, 3, 3])}, tmp_path / "a.ckpt")
    assert guarded_load(tmp_path / "a.ckpt") == {"milestones": {2: 1, 3: 2}}
