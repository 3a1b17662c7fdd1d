"""Grids are drawn when they should be, and the last one takes no longer than it is worth."""

import logging
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.diffusion.samplers import DDIM
from ddpm.training.callbacks import samples
from ddpm.training.callbacks.samples import SampleGrids


class Counting(DDIM):
    """Counts how often it is asked to draw."""

    drawn = 0

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        self.drawn += 1
        return super().__call__(*arguments, **settings)


def trained(directory: Path, max_steps: int, **settings: Any) -> tuple[int, int, list[str]]:
    """How many grids the fast sampler and the run's own drew, and the files."""
    fast, own = Counting(3), Counting(5)
    module = make_module()
    module.sampler = own
    trainer: Trainer = make_trainer(directory, max_steps, SampleGrids(fast, n=4, **settings))
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    return fast.drawn, own.drawn, sorted(path.name for path in (directory / "samples").glob("*.png"))


def files(*steps: int) -> list[str]:
    return [f"step_{step:08d}.png" for step in steps]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("final", "seconds", "drawn", "steps"),
    [
        (False, 0.0, (2, 0), (2, 4)),
        (True, 1e6, (1, 1), (2, 4)),
        ("auto", 0.0, (1, 1), (2, 4)),
        ("auto", 1e6, (2, 0), (2, 4)),
    ],
)
def test_the_last_grid(
    tmp_path: Path,
    final: Any,
    seconds: float,
    drawn: tuple[int, int],
    steps: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(samples, "seconds_to_draw", lambda *_: seconds)
    with caplog.at_level(logging.INFO):
        *found, written = trained(tmp_path, 4, every_n_steps=2, final=final)
    assert tuple(found) == drawn
    assert written == files(*steps)
    said = [line for line in caplog.messages if "callbacks.samples.final=true" in line]
    assert len(said) == (final == "auto" and seconds > 0)


def test_a_run_that_ends_between_grids_has_a_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(samples, "seconds_to_draw", lambda *_: 1e6)
    assert trained(tmp_path, 3, every_n_steps=2) == (2, 0, files(2, 3))


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match=r"callbacks\.samples\.final=maybe must be true, false or auto"):
        SampleGrids(DDIM(3), final="maybe")
    with pytest.raises(ValueError, match=r"callbacks\.samples\.n=0 must be at least 1"):
        SampleGrids(DDIM(3), n=0)
