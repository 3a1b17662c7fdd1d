"""Grids are drawn when they should be, and the last one takes no longer than it is worth."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from models import make_module, make_trainer
from PIL import Image

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.sampling import figures
from ddpm.training.callbacks import shown
from ddpm.training.callbacks.samples import SampleGrids


class Counting(DDIM):
    """Counts how often it is asked to draw."""

    drawn = 0

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        self.drawn += 1
        return super().__call__(*arguments, **settings)


def trained(directory: Path, max_steps: int, **settings: Any) -> tuple[int, int, list[str]]:
    """How many grids the fast sampler and the run's own drew, and the files."""
    fast, own = Counting(3), Counting(settings.pop("own", 5))
    module = make_module()
    module.sampler = own
    trainer: Trainer = make_trainer(directory, max_steps, SampleGrids(fast, n=4, **settings))
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    return fast.drawn, own.drawn, sorted(path.name for path in (directory / "samples").glob("*.png"))


def files(*steps: int) -> list[str]:
    return [f"step_{step:08d}.png" for step in steps]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("final", "own", "drawn", "steps"),
    [  # 4 steps of 32 images are worth 384 forward passes, and 4 pictures in 24 steps take a quarter of that
        (False, 5, (2, 0), (2, 4)),
        (True, 25, (1, 1), (2, 4)),
        ("auto", 24, (1, 1), (2, 4)),
        ("auto", 25, (2, 0), (2, 4)),
    ],
)
def test_the_last_grid(
    tmp_path: Path,
    final: Any,
    own: int,
    drawn: tuple[int, int],
    steps: tuple[int, ...],
    caplog: pytest.LogCaptureFixture,
):
    with caplog.at_level(logging.INFO):
        *found, written = trained(tmp_path, 4, every_n_steps=2, final=final, own=own)
    assert tuple(found) == drawn
    assert written == files(*steps)
    said = [line for line in caplog.messages if "callbacks.samples.final=true" in line]
    assert len(said) == (final == "auto" and own == 25)


def test_loggers_have_large_images_reduced_and_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    logged: list[tuple[tuple[int, ...], str]] = []
    monkeypatch.setattr(figures, "LOGGED", 4)
    monkeypatch.setattr(
        shown, "log_picture", lambda _, __, picture, *, step, caption: logged.append((picture.shape, caption))
    )
    module, trainer = make_module(), make_trainer(tmp_path, 1, SampleGrids(DDIM(3), n=4, every_n_steps=1))
    trainer.loggers = [CSVLogger(str(tmp_path))]
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    exact = figures.grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)).shape
    assert Image.open(tmp_path / "samples" / files(1)[0]).size == exact[1::-1]
    reduced = figures.grid(torch.zeros(4, 1, 4, 4, dtype=torch.uint8)).shape
    assert logged[0][0] == reduced
    assert logged[0][1].endswith("; images at 4 x 4, as they are in samples/step_00000001.png")


def test_a_run_that_ends_between_grids_has_a_last_one(tmp_path: Path):
    assert trained(tmp_path, 3, every_n_steps=2, own=100) == (2, 0, files(2, 3))


def test_what_a_killed_start_left_of_a_grid_goes(tmp_path: Path):
    (tmp_path / "samples").mkdir()
    for name in (".step_00000002.part.png", "mine.part.png"):
        (tmp_path / "samples" / name).write_bytes(b"half")
    trained(tmp_path, 1, every_n_steps=2, final=False)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["mine.part.png"]


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"callbacks\.samples\.final=maybe must be true, false or auto"):
        SampleGrids(DDIM(3), final="maybe")
    with pytest.raises(ValueError, match=r"callbacks\.samples\.n=0 must be at least 1"):
        SampleGrids(DDIM(3), n=0)


def test_a_grid_of_steps_that_come_again_is_drawn_again(tmp_path: Path):
    """Behind a return to a checkpoint, with which the grids of later steps went."""
    fast = Counting(3)
    grids = SampleGrids(fast, n=4, every_n_steps=2, final=False)
    for times in (1, 2):
        trainer = make_trainer(tmp_path, 2, grids)
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
        assert fast.drawn == times
