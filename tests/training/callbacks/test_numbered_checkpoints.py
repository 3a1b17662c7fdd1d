"""Checkpoints come and go by their numbers; what others put beside them stays."""

import shutil
from pathlib import Path

import pytest
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.checkpoints import at_step, find, numbered


def names(directory: Path) -> set[str]:
    return {path.name for path in (directory / "checkpoints").iterdir()}


def test_old_ones_go_and_milestones_and_files_of_others_stay(tmp_path: Path):
    beside = ["step_00000001_good.ckpt", "step_5.ckpt", "best.ckpt", "step_0000000x.ckpt", "notes.txt"]
    (tmp_path / "checkpoints").mkdir()
    for name in beside:
        (tmp_path / "checkpoints" / name).write_text("theirs")
    saving = Checkpoints(every_n_steps=1, keep=2, milestones_every_n_steps=3)
    make_trainer(tmp_path, 8, saving).fit(
        make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0)
    )
    own = {at_step(step) for step in (3, 6, 7, 8)}
    assert names(tmp_path) == {*beside, *own, "last.ckpt"}
    assert set(numbered(tmp_path / "checkpoints")) == {3, 6, 7, 8}
    assert find(tmp_path)[1]["global_step"] == 8


def test_a_copy_made_while_training_is_left_alone(tmp_path: Path):
    class Copies(Checkpoints):
        def save(self, trainer) -> None:
            super().save(trainer)
            newest = tmp_path / "checkpoints" / at_step(trainer.global_step)
            shutil.copy(newest, newest.with_name(f"{newest.stem}_good.ckpt"))

    make_trainer(tmp_path, 4, Copies(every_n_steps=1, keep=2)).fit(
        make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0)
    )
    assert {name for name in names(tmp_path) if "good" not in name} == {
        at_step(3),
        at_step(4),
        "last.ckpt",
    }
    assert len([name for name in names(tmp_path) if "good" in name]) == 4


@pytest.mark.parametrize(
    "settings",
    [
        {"every_n_steps": 0},
        {"keep": 1},
        {"every_n_steps": 10, "milestones_every_n_steps": 15},
        {"every_n_steps": 10, "milestones_every_n_steps": 0},
    ],
)
def test_settings_without_meaning_are_refused(settings: dict):
    with pytest.raises(ValueError, match=r"callbacks\.checkpoints|every_n_steps=0 must be at least 1"):
        Checkpoints(**settings)
