"""From two folders to samples under the pictures of the second, by the programs."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import run_program
from PIL import Image


@pytest.mark.e2e
@pytest.mark.slow
def test_pairs_are_trained_on_and_drawn_under(tmp_path: Path):
    random = np.random.RandomState(0)
    for i in range(24):
        for side, channels in (("A", 1), ("B", 3)):
            (tmp_path / side).mkdir(exist_ok=True)
            pixels = random.randint(0, 256, (8, 8, channels)).astype(np.uint8)
            Image.fromarray(pixels.squeeze()).save(tmp_path / side / f"{i}.png")
    words = ["data=folder", "data.path=A", "data.image_size=8", "condition=paired", "data.condition.path=B",
             "model=smoke", "trainer=cpu", "logger=none", "callbacks=plain", "callbacks.samples.n=4",
             "sampler=ddim", "sampler.num_steps=2", "schedule.num_timesteps=50", "trainer.max_steps=2",
             "data.batch_size=8"]  # fmt: skip
    begun = run_program("train.py", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert begun.returncode == 0, begun.said
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["condition"]["path"] == str(tmp_path / "B")
    kept = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["data"]
    assert (kept["image_shape"], kept["condition"]["image_channels"]) == ([1, 8, 8], 3)
    (tmp_path / "B").rename(tmp_path / "C")
    words = [f"ckpt={run}", "n=2", f"condition={tmp_path / 'C'}", "out=drawn"]
    drawn = run_program("sample.py", *words, cwd=elsewhere)
    assert drawn.returncode == 0, drawn.said
    assert np.load(elsewhere / "drawn" / "samples.npz")["arr_0"].shape == (2, 8, 8, 1)
