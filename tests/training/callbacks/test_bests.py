"""What is best so far, and of which step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.training.callbacks import bests
from ddpm.training.callbacks.bests import Bests
from ddpm.training.callbacks.loss_by_timestep import LossByTimestep


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    monkeypatch.setattr(bests, "log_summary", lambda logger, found: facts.update(found))
    return facts


def trainer_at(step: int, values: dict[str, float]) -> Any:
    watching = SimpleNamespace(monitor="samples/fid", mode="min")
    return SimpleNamespace(
        global_step=step, sanity_checking=False, loggers=[None], callbacks=[watching, LossByTimestep(100)],
        callback_metrics={name: torch.tensor(value) for name, value in values.items()},
    )  # fmt: skip


def test_what_is_not_finite_is_never_best(told: dict[str, Any]):
    found = Bests()
    for step, value in ((100, float("nan")), (200, float("inf")), (300, 0.1), (400, float("nan"))):
        found.on_validation_end(trainer_at(step, {"val/loss": value}), SimpleNamespace())  # type: ignore[arg-type]
    assert found.found == {"val/loss": (pytest.approx(0.1), 300)}
    assert told["best/val/loss_step"] == 300


def test_a_measure_is_of_the_step_at_which_it_was_measured(told: dict[str, Any]):
    found = Bests()
    for step, value in ((100, 9.0), (150, 9.0), (200, 3.0), (250, 3.0), (300, 5.0)):
        found.on_train_batch_end(trainer_at(step, {"samples/fid": value}))
    found.on_validation_end(trainer_at(350, {"samples/fid": 5.0}), SimpleNamespace())  # type: ignore[arg-type]
    assert found.found == {"samples/fid": (3.0, 200)}


def test_loggers_that_begin_anew_are_told_what_is_known(told: dict[str, Any]):
    found = Bests()
    found.load_state_dict({"val/loss": [0.5, 7]})
    found.on_train_start(trainer_at(8, {}), SimpleNamespace())  # type: ignore[arg-type]
    assert told == {"best/val/loss": 0.5, "best/val/loss_step": 7}
