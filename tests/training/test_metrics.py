"""Means over steps, read at once; on a device that has no float64."""

import math
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics import MeanMetric

from ddpm.training.metrics import RunningMean, load_state, log_scalars, reduce, state_of

CPU = torch.device("cpu")


class WithoutFloat64(TorchDispatchMode):
    """A device like Apple's GPUs: whatever makes a float64 there fails."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        assert not (isinstance(made, torch.Tensor) and made.dtype == torch.float64), function
        return made


def test_means_are_those_of_torchmetrics_and_start_anew():
    values = torch.linspace(-1, 3, 17)
    ours, theirs = RunningMean(), MeanMetric()
    for value in values:
        ours.add(value)
        theirs.update(value)
    share = RunningMean()
    share.add(0.25)
    with WithoutFloat64():
        found = reduce({"loss": ours, "share": share, "nothing": RunningMean()}, CPU)
    assert found["loss"] == pytest.approx(float(theirs.compute()), rel=1e-6)
    assert found["share"] == 0.25
    assert math.isnan(found["nothing"])
    assert (ours.total, ours.count) == (0.0, 0)


def test_sums_of_batches_are_weighted_by_their_count():
    mean = RunningMean()
    mean.add(torch.tensor(6.0), count=3)
    mean.add(torch.tensor(2.0), count=1)
    assert reduce({"a": mean}, CPU) == {"a": 2.0}


def test_sums_go_on_where_a_checkpoint_left_them():
    def means() -> dict[str, RunningMean]:
        return {"a": RunningMean(), "b": RunningMean()}

    left = means()
    for value in (0.1, 0.7):
        left["a"].add(torch.tensor(value))
    state = state_of(left, CPU)
    assert state["b"] == [[0.0, 0.0]]
    again = means()
    load_state(again, state, rank=0)
    for each in (left, again):
        each["a"].add(torch.tensor(0.3))
    assert reduce(again, CPU)["a"] == reduce(left, CPU)["a"]
    load_state(again, {}, rank=0)
    assert (again["a"].total, again["a"].count) == (0, 0)


@pytest.mark.parametrize(
    ("world_size", "expected"), [(2, [(1.0, 2), (3.0, 4)]), (3, [(4.0, 6), (0, 0), (0, 0)])]
)
def test_each_rank_takes_its_own_sum_and_of_other_ranks_the_first_all(
    monkeypatch: pytest.MonkeyPatch, world_size: int, expected: list[tuple[float, int]]
):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)
    for rank, sums in enumerate(expected):
        mean = RunningMean()
        load_state({"a": mean}, {"a": [[1.0, 2.0], [3.0, 4.0]]}, rank)
        assert (mean.total, mean.count) == sums


def test_the_check_before_training_is_not_logged():
    logger = Mock()
    trainer: Any = SimpleNamespace(loggers=[logger], global_step=7, callback_metrics={}, sanity_checking=True)
    log_scalars(trainer, {"val/loss": 2.0})
    assert not logger.log_metrics.called
    assert not trainer.callback_metrics
    trainer.sanity_checking = False
    log_scalars(trainer, {"val/loss": 2.0})
    logger.log_metrics.assert_called_once_with({"val/loss": 2.0}, step=7)
    assert trainer.callback_metrics == {"val/loss": 2}
