"""Colours of samples that shift away from the data's are seen in two numbers."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.training.callbacks.colours import log_colours


def logged(samples: torch.Tensor, data: Any) -> dict[str, float]:
    trainer: Any = SimpleNamespace(loggers=[], global_step=7, callback_metrics={}, sanity_checking=False)
    log_colours(trainer, data, samples)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_each_channel_and_the_largest_shift():
    samples = torch.zeros(2, 3, 4, 4)
    samples[:, 1] = 0.5
    samples[0, 2], samples[1, 2] = 1.0, -1.0
    data = {"facts": {"mean": [0.5, 0.9, 0.45], "std": [0.0, 0.125, 0.25]}}  # in [0, 1]
    found = logged(samples, data)
    assert found == pytest.approx(
        {
            "samples/mean_0": 0, "samples/mean_1": 0.5, "samples/mean_2": 0,
            "samples/deviation_0": 0, "samples/deviation_1": 0, "samples/deviation_2": 1,
            "samples/mean_shift": 0.5 - 0.8, "samples/deviation_shift": 1 - 0.5,
        }
    )  # fmt: skip


@pytest.mark.parametrize("data", [None, {}, {"facts": {}}])
def test_without_knowing_the_data_there_is_no_shift(data: Any):
    assert logged(torch.ones(1, 1, 2, 2), data) == {"samples/mean_0": 1, "samples/deviation_0": 0}
