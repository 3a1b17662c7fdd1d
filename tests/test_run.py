"""A trained run as an object."""

from pathlib import Path
from typing import Any

import pytest

import ddpm
from ddpm import run as run_module


def test_a_path_keeps_what_it_shows(conditional_run: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []

    class Recorder(run_module.Recorder):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(run_module, "Recorder", Recorder)
    run = ddpm.load(conditional_run)
    seen: list[int] = []
    run.path(2, columns=5, sampler="ddim", num_steps=20, on_step=lambda t, x_t, x_0: seen.append(t))
    assert len(seen) == 20
    assert list(made[0].x_t) == [seen[i] for i in (0, 6, 13, 19)]
    run.path(1, columns=9, sampler="ddim", num_steps=3)
    assert len(made[1].x_0) == 3


def test_no_images_are_refused(conditional_run: Path):
    with pytest.raises(ValueError, match="0 images cannot be drawn"):
        ddpm.load(conditional_run).sample(0)


def test_a_card_names_the_classes_or_says_that_there_are_more(conditional_run: Path):
    run = ddpm.load(conditional_run)
    assert "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in repr(run)
    run.module.classes = [str(i) for i in range(100)]
    assert "100: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..." in repr(run)
