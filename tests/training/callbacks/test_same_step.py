"""Ranks that found different checkpoints do not train as one."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.training.callbacks.same_step import SameStep
from ddpm.training.ending import TrainingError


def start(steps: list[int]) -> None:
    """As rank 0 of as many ranks as there are steps."""
    strategy = SimpleNamespace(
        all_gather=lambda own: torch.tensor([[int(own)], *([step] for step in steps[1:])])
    )
    trainer: Any = SimpleNamespace(world_size=len(steps), global_step=steps[0], strategy=strategy)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    SameStep().on_train_start(trainer, module)


@pytest.mark.parametrize("steps", [[7], [0, 0], [20, 20, 20]])
def test_ranks_at_one_step_go_on(steps: list[int]):
    start(steps)


def test_ranks_at_different_ones_end_and_say_who_is_where():
    with pytest.raises(
        TrainingError, match=r"different checkpoints .*rank 0 at 20, rank 1 at 20, rank 2 at 10"
    ):
        start([20, 20, 10])
