"""Rectified flow and EDM as programs: each experiment trains, and its run is sampled and measured."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import composed, run_here
from PIL import Image

import ddpm

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SMALL = (
    "data=digits", "model=smoke", "model.dropout=0.1", "lr_schedule=constant", "data.batch_size=32",
    "trainer.max_steps=3", "trainer.val_check_interval=3", "trainer.accelerator=cpu",
    "callbacks=plain", "callbacks.samples.n=2", "callbacks.samples.sampler.num_steps=3", "logger=none",
)  # fmt: skip


@pytest.mark.parametrize("experiment", ["flow_digits", "edm_digits", "flow_cifar10", "edm_cifar10"])
def test_an_experiment_trains_and_its_run_is_sampled(
    experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    learned = ["weighting=uncertainty"] if experiment == "edm_digits" else []
    words = [f"experiment={experiment}", *SMALL, *learned, "hydra.run.dir=run"]
    assert run_here(monkeypatch, "train", *words) == 0
    run = ddpm.load(tmp_path / "run")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert math.isfinite(float(record["metrics"]["val/loss"]))
    config = composed("train", f"experiment={experiment}")
    assert run.config["objective"] == config["objective"]
    assert run.config["timesteps"] == config["timesteps"]
    sample = ["ckpt=run", "n=4", "sampler.num_steps=4", "trainer.accelerator=cpu", "hydra.run.dir=drawn"]
    assert run_here(monkeypatch, "sample", *sample) == 0
    (images,) = np.load(tmp_path / "drawn" / "samples.npz").values()
    assert images.shape[:3] == (4, 8, 8)
    assert np.ptp(images) > 50
    assert Image.open(tmp_path / "drawn" / "grid.png").size[0] > 16
    if experiment.endswith("digits"):
        measured = [
            "ckpt=run",
            "metrics=[nll]",
            "metrics.nll.n=2",
            "metrics.nll.num_steps=5",
            "trainer.accelerator=cpu",
            "hydra.run.dir=measured",
        ]
        assert run_here(monkeypatch, "evaluate", *measured) == 0
