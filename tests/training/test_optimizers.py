"""Learning rates, step by step."""

import math

import pytest
import torch
from torch.nn import Parameter

from ddpm.training.optimizers import adam, adam_one_cycle


def rates(config: dict, steps: int) -> list[float]:
    """The rate that each optimizer step uses."""
    optimizer, schedule = config["optimizer"], config["lr_scheduler"]["scheduler"]
    assert config["lr_scheduler"]["interval"] == "step"
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def parameters() -> list[Parameter]:
    return [Parameter(torch.zeros(2))]


def test_the_papers_warm_up_is_linear_then_constant():
    found = rates(adam(parameters()), 5010)
    assert found[0] == pytest.approx(2e-4 / 5000)
    assert found[2499] == pytest.approx(1e-4)
    assert found[4999] == found[5009] == pytest.approx(2e-4)


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert rates(adam(parameters(), lr=2e-3, warmup_steps=0), 3) == [2e-3] * 3


def test_one_cycle_rises_and_falls_by_half_cosines():
    found = rates(adam_one_cycle(parameters(), total_steps=100, lr=1.0, warmup_fraction=0.3), 120)
    assert found[0] == pytest.approx(0.04)
    assert found[15] == pytest.approx(0.04 + 0.96 * 0.5)
    assert found[30] == pytest.approx(1.0)
    assert found[65] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert found[100:] == [pytest.approx(0.0, abs=1e-12)] * 20
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)


@pytest.mark.parametrize("settings", [{"total_steps": 0}, {"total_steps": -1}, {"warmup_fraction": 1.0}])
def test_a_cycle_without_meaning_is_refused(settings: dict):
    with pytest.raises(ValueError, match=r"total_steps=.* must be at least 1, and warmup_fraction"):
        adam_one_cycle(parameters(), **({"total_steps": 10} | settings))
