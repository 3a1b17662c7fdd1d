"""Rows whose loss is far above those before them."""

import csv
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from models import make_module, make_trainer
from torch import Tensor

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.loggers import MetricsCSV
from ddpm.training.spikes import LossSpikes


def marked(losses: list[float]) -> dict[int, float]:
    spikes = LossSpikes()
    ratios = [spikes.ratio(loss) for loss in losses]
    return {i: ratio for i, ratio in enumerate(ratios) if ratio is not None}


def test_a_row_far_above_the_others_is_marked_with_its_ratio():
    assert marked([1.0] * 12 + [3.0] + [1.0] * 5) == {12: 3.0}


def test_noise_and_a_falling_loss_are_no_spikes():
    noise = [NormalDist().inv_cdf((i * 0.6180339887 + 0.1) % 1) for i in range(500)]
    assert not marked([math.exp(-i / 100) + 0.05 * n * math.exp(-i / 100) for i, n in enumerate(noise)])
    assert not marked([1 + 1e-6 * n for n in noise])


def test_the_spread_decides():
    steady, wide = [1 + 0.01 * (-1) ** i for i in range(20)], [1 + 0.2 * (-1) ** i for i in range(20)]
    assert marked([*steady, 1.4]) == {20: pytest.approx(1.4)}
    assert not marked([*wide, 1.4])


def test_losses_around_0_and_below_have_spikes_too():
    noise = [0.1 * (-1) ** i for i in range(20)]
    assert marked([*(one - 2 for one in noise), 1.0]) == {20: pytest.approx(2.5)}
    assert marked([*noise, 3.0]) == {20: pytest.approx(1 + 30 / 1.4826)}
    assert marked([0.0] * 20 + [1.0]) == {20: math.inf}


def test_few_rows_say_nothing():
    assert not marked([1.0] * 9 + [100.0])
    assert marked([1.0] * 10 + [100.0])


def test_a_loss_that_stays_high_becomes_the_new_level():
    assert set(marked([1.0] * 20 + [3.0] * 30)) == set(range(20, 30))


def test_a_row_without_a_loss_is_passed_over():
    assert marked([1.0] * 12 + [math.nan, 3.0]) == {13: 3.0}


def test_it_goes_on_where_it_stopped():
    first, second = LossSpikes(), LossSpikes()
    for _ in range(12):
        first.ratio(1.0)
    second.load_state_dict(first.state_dict())
    assert first.ratio(3.0) == second.ratio(3.0) == 3.0


def test_a_run_marks_its_row(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    module = make_module()
    own = module.losses

    def losses(*arguments: Any) -> Tensor:
        found: Tensor = own(*arguments)
        return found * (10 if module.trainer.global_step == 15 else 1)

    module.losses = losses
    trainer = make_trainer(tmp_path, 18)
    trainer.loggers, trainer.log_every_n_steps = [MetricsCSV(tmp_path / "metrics.csv")], 1
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=16, seed=0))
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = [row for row in rows if row["diagnostics/loss_spike"]]
    assert row["step"] == "16"
    assert 5 < float(row["diagnostics/loss_spike"]) < 15
    assert "step 16: the loss is" in caplog.text
    assert torch.isfinite(torch.tensor(float(rows[-1]["train/loss"])))
