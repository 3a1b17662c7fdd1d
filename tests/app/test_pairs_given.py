"""Networks of pairs: what they are built for, and pictures of the other kind that they draw under."""

from pathlib import Path

import pytest
import torch
from conftest import _make_run
from PIL import Image

from ddpm.app import conditions_given
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
    given = {"condition": str(tmp_path / "C"), "condition_mask": None}
    conditions = conditions_given.read(given, run).conditions
    assert conditions is not None
    shown = conditions([0, 2, 12]).image  # 0.png, 10.png, and 0.png again
    levels = torch.tensor([0, 200, 0]) / 127.5 - 1
    torch.testing.assert_close(shown[:, 0, 0, 0], levels)
    assert (shown[:, 1] == 1).all()
