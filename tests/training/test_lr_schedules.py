"""Learning rates, step by step."""

import math
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR

from ddpm.training.lr_schedules import constant, cosine, one_cycle, warmup


def rates(make: Any, steps: int, lr: float = 1.0, **settings: Any) -> list[float]:
    """The rate that each optimizer step uses."""
    optimizer = SGD([Parameter(torch.zeros(2))], lr=lr)
    schedule = make(optimizer, **settings)
    assert isinstance(schedule, LambdaLR)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_is_the_optimizers_own():
    assert rates(constant, 4, lr=3e-4) == [3e-4] * 4


def test_the_papers_warm_up_is_linear_then_constant():
    found = rates(warmup, 5010, lr=2e-4)
    assert found[0] == pytest.approx(2e-4 / 5000)
    assert found[2499] == pytest.approx(1e-4)
    assert found[4999] == found[5009] == pytest.approx(2e-4)


def test_without_warm_up_the_first_step_has_the_whole_rate():
    assert rates(warmup, 3, lr=2e-3, warmup_steps=0) == [2e-3] * 3


def test_one_cycle_rises_and_falls_by_half_cosines():
    found = rates(one_cycle, 120, total_steps=100, warmup_fraction=0.3)
    assert found[0] == pytest.approx(0.04)
    assert found[15] == pytest.approx(0.04 + 0.96 * 0.5)
    assert found[30] == pytest.approx(1.0)
    assert found[65] == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert found[100:] == [pytest.approx(0.0, abs=1e-12)] * 20
    assert found[:31] == sorted(found[:31])
    assert found[30:] == sorted(found[30:], reverse=True)


def test_cosine_rises_linearly_and_falls_to_its_fraction():
    found = rates(cosine, 120, total_steps=100, warmup_steps=20, final_fraction=0.1)
    assert found[:20] == pytest.approx([(n + 1) / 20 for n in range(20)])
    assert found[20:101] == pytest.approx(
        [0.1 + 0.9 * (1 + math.cos(math.pi * n / 80)) / 2 for n in range(81)]
    )
    assert found[100:] == [pytest.approx(0.1)] * 20


def test_cosine_without_warm_up_is_torchs():
    optimizer = SGD([Parameter(torch.zeros(2))], lr=1.0)
    theirs, schedule = [], torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50)
    for _ in range(50):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(cosine, 50, total_steps=50) == pytest.approx(theirs)


def test_the_state_is_that_of_a_lambda_lr():
    """So that the schedules of checkpoints made before load."""
    made = one_cycle(Adam([Parameter(torch.zeros(2))], lr=1e-3), total_steps=10)
    plain = LambdaLR(Adam([Parameter(torch.zeros(2))], lr=1e-3), lambda step: 0.04)
    assert made.state_dict() == plain.state_dict()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (warmup, {"warmup_steps": -5}, r"^lr_schedule\.warmup_steps=-5 must be a whole number, at least 0$"),
        (one_cycle, {"total_steps": 0}, r"^lr_schedule\.total_steps=0 must be a whole number, at least 1$"),
        (one_cycle, {"total_steps": -1}, r"^lr_schedule\.total_steps=-1 must be a whole number, at least 1$"),
        (
            one_cycle,
            {"total_steps": 9, "warmup_fraction": 1.0},
            r"^lr_schedule\.warmup_fraction=1\.0 must be between 0 and 1$",
        ),
        (cosine, {"total_steps": 0}, r"^lr_schedule\.total_steps=0 must be a whole number, at least 1$"),
        (
            cosine,
            {"total_steps": 9, "warmup_steps": 9},
            r"^lr_schedule\.warmup_steps=9 must be below lr_schedule\.total_steps=9$",
        ),
        (
            cosine,
            {"total_steps": 9, "final_fraction": 1.5},
            r"^lr_schedule\.final_fraction=1\.5 must be in \[0, 1\]$",
        ),
    ],
)
def test_a_schedule_without_meaning_is_refused(make: Any, settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        rates(make, 1, **settings)
