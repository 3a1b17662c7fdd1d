"""Networks of pairs: what they are built for, and pictures of the other kind that they draw under."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import _make_run, composed
from PIL import Image

from ddpm.app import conditions_given, figure
from ddpm.app.measuring.measurement import data_of, draw_under_held_out
from ddpm.errors import UsageError
from ddpm.run import load


@pytest.mark.e2e
def test_a_run_of_pairs_draws_under_pictures_of_the_other_kind(tmp_path: Path):
    for i in range(12):
        for side, level in (("A", i), ("B", (20 * i, 255, 0))):
            (tmp_path / side).mkdir(exist_ok=True)
            Image.new("L" if side == "A" else "RGB", (8, 8), level).save(tmp_path / side / f"{i}.png")
    run_directory = tmp_path / "run"
    run_directory.mkdir()
    words = (f"data.path={tmp_path / 'A'}", "condition=paired", f"data.condition.path={tmp_path / 'B'}")
    _make_run(run_directory, "data=folder", "data.image_size=8", *words)
    (tmp_path / "B").rename(tmp_path / "C")  # what is given is read wherever it lies
    run = load(run_directory)
    assert (run.module.image_shape, run.module.condition_channels) == ((1, 8, 8), 3)
    named = SimpleNamespace(runs=[run_directory], allow_targets=[])
    assert figure._load(named).directory == run.directory, "a figure of the process needs no data"  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there is no such"):
        figure._drawing(named)  # type: ignore[arg-type]
    words = composed("evaluate", f"ckpt={run_directory}", f"data.condition.path={tmp_path / 'C'}")
    draw_under_held_out(run, data_of(run, words))  # what is typed says where the others are now
    assert run.module.conditions is not None
    assert run.module.conditions([0]).sizes == (3, 0)
    with pytest.raises(UsageError, match=r"data\.condition=masked: a run keeps the condition"):
        composed("evaluate", f"ckpt={run_directory}", "data.condition=masked")
    given = {"condition": str(tmp_path / "C"), "condition_mask": None}
    conditions = conditions_given.read(given, run).conditions
    assert conditions is not None
    shown = conditions([0, 2, 12]).image  # 0.png, 10.png, and 0.png again
    levels = torch.tensor([0, 200, 0]) / 127.5 - 1
    torch.testing.assert_close(shown[:, 0, 0, 0], levels)
    assert (shown[:, 1] == 1).all()


@pytest.mark.e2e
def test_numbers_of_other_images_are_shown_as_those_that_the_run_was_trained_on(tmp_path: Path):
    """A run knows the mean and deviation of its own, whatever they are elsewhere."""
    rng, ages = np.random.default_rng(0), np.arange(20, dtype=np.float32)
    for name, shift in (("own", 0), ("other", 100)):
        images = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", images=images, ages=ages + shift)
    (tmp_path / "run").mkdir()
    words = (f"data.path={tmp_path / 'own.npz'}", "condition=vector", "data.condition.key=ages")
    _make_run(tmp_path / "run", "data=npz", *words)
    run = load(tmp_path / "run")
    seen = {}
    for typed in (
        [],
        [f"data.path={tmp_path / 'other.npz'}"],
        ["data=npz", f"data.path={tmp_path / 'other.npz'}"],
    ):
        data = data_of(run, composed("evaluate", f"ckpt={tmp_path / 'run'}", *typed))
        draw_under_held_out(run, data)
        assert run.module.conditions is not None
        seen[" ".join(typed)] = run.module.conditions([0]).vector
    own, *others = seen.values()
    std = run.module.data["condition"]["std"][0]
    for other in others:
        torch.testing.assert_close(other, own + 100 / std)
