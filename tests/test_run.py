"""A run in a notebook: drawing, looking, and what is said to a person who typed something else."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ddpm
from ddpm import run as run_module
from ddpm.errors import UsageError

RUN = Path(__file__).parent / "fixtures" / "run_0_1"
FEW: dict[str, Any] = {"sampler": "ddim", "num_steps": 2}


@pytest.fixture(scope="module")
def run() -> ddpm.Run:
    return ddpm.load(RUN, device="cpu")


@pytest.mark.parametrize(
    "sampler", ["ancestral", "ddim", "deis", "dpm_solver", "dpm_solver_sde", "heun", "heun_churn"]
)
def test_every_sampler_is_named(sampler: str, run: ddpm.Run):
    seen: list[int] = []
    images = run.sample(2, sampler=sampler, num_steps=2, on_step=lambda t, x_t, x_0: seen.append(t))
    assert images.shape == (2, *run.module.image_shape)
    assert len(seen) >= 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n=0: must be a whole number of at least 1"),
        ({"n": 1.5}, "n=1.5: must be a whole number of at least 1"),
        ({"n": "3"}, "n=3: must be a whole number of at least 1"),
        ({"batch_size": -1}, "batch_size=-1: must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed=1.5: must be a whole number of at least 0"),
        ({"weights": "emma"}, "weights=emma: must be ema or raw"),
        ({"sampler": "ddin"}, "sampler=ddin: there is no such option; there are ancestral, ddim"),
        ({"num_step": 3}, "num_step: is no setting of this sampler or guidance; did you mean num_steps?"),
        ({"num_steps": 0}, "sampler.num_steps=0: must be null or a whole number"),
        ({"guidance": "strong"}, "guidance=strong: there is no such option"),
    ],
)
def test_a_mistake_is_told(settings: dict[str, Any], message: str, run: ddpm.Run):
    with pytest.raises(ValueError, match=re.escape(message)):
        run.sample(**{"n": 1, **FEW, **settings})


def test_classes_are_named_in_any_way(run: ddpm.Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run.module, "classes", ["zero", "one", "two"])
    assert run.numbered("two") == [2], "and not its letters"
    assert run.numbered(2) == [2]
    assert run.numbered(["two", 0, np.int64(1), torch.tensor(2)]) == [2, 0, 1, 2]
    for label in ("too", True, None, 1.0):
        with pytest.raises(UsageError, match=f"labels: this run has no class {label};"):
            run.numbered([label])


def test_pictures_of_a_run(run: ddpm.Run):
    assert run.grid(4, seed=1, **FEW).size == run.grid(4, seed=2, **FEW).size
    assert run.path(2, columns=3, batch_size=1, **FEW).width > run.path(2, columns=2, **FEW).width
    with pytest.raises(UsageError, match="columns=1: must be a whole number of at least 2"):
        run.path(2, columns=1, **FEW)


def test_a_card_without_a_grid_with_one_and_with_one_half_written(tmp_path: Path):
    moved = tmp_path / "moved <运行>"
    shutil.copytree(RUN, moved)
    shutil.rmtree(moved / "samples", ignore_errors=True)
    run = ddpm.load(moved, device="cpu")
    assert str(moved) in repr(run)
    assert len(repr(run)) < 1000
    assert "moved &lt;运行&gt;" in run._repr_html_()
    assert "<img" not in run._repr_html_()
    (moved / "samples").mkdir()
    Image.new("L", (8, 8)).save(moved / "samples" / "step_00000010.png")
    assert "step_00000010.png" in run._repr_html_()
    (moved / "samples" / "step_00000020.png").write_bytes(b"half")
    assert "<img" not in run._repr_html_()


def test_a_path_keeps_what_it_shows(conditional_run: Path, monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []

    class Recorder(run_module.Trajectory):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(run_module, "Trajectory", Recorder)
    run = ddpm.load(conditional_run)
    seen: list[int] = []
    run.path(2, columns=5, sampler="ddim", num_steps=20, on_step=lambda t, x_t, x_0: seen.append(t))
    assert len(seen) == 20
    assert list(made[0].x_t) == [seen[i] for i in (0, 6, 13, 19)]
    run.path(1, columns=9, sampler="ddim", num_steps=3)
    assert len(made[1].x_0) == 3


def test_a_card_names_the_classes_or_says_that_there_are_more(conditional_run: Path):
    run = ddpm.load(conditional_run)
    assert "10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in repr(run)
    run.module.classes = [str(i) for i in range(100)]
    assert "100: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ..." in repr(run)
