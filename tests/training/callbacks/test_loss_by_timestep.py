"""The heat map has the mean loss of each part of the chain and of the training, whatever their lengths."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn

from ddpm.training.callbacks import loss_by_timestep
from ddpm.training.callbacks.loss_by_timestep import AT_ONCE, COLUMNS, LossByTimestep


def fed(callback: LossByTimestep, steps: range, T: int, nan: bool = False) -> list[tuple[int, Any, Any]]:  # noqa: N803
    """Show a callback two micro-batches of five losses each step, and keep them."""
    generator = torch.Generator().manual_seed(steps.start)
    module: Any = SimpleNamespace(schedule=SimpleNamespace(num_timesteps=T), device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(global_step=steps.start)
    callback.on_train_start(trainer, module)
    seen = []
    for step in steps:
        for _ in range(2):
            t = torch.randint(T, (5,), generator=generator)
            losses = torch.rand(5, generator=generator)
            if nan and step % 3 == 0:
                losses[0] = torch.nan
            trainer.global_step, module.losses_seen = step, (t, losses)
            callback.on_before_backward(trainer, module, losses.mean())
            seen.append((step, t, losses))
    return seen


def drawn(callback: LossByTimestep, step: int, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, ...]:
    """Means, and where columns and bins begin and end."""
    found: list[Any] = []
    monkeypatch.setattr(loss_by_timestep.heat_map, "draw", lambda *a, **_: found.append(a))
    monkeypatch.setattr(loss_by_timestep, "show_figure", lambda *_: None)
    trainer: Any = SimpleNamespace(
        global_step=step, is_global_zero=True, callbacks=[], strategy=SimpleNamespace(barrier=int)
    )
    callback.on_train_end(trainer, Any)
    callback.on_train_end(trainer, Any)  # the same picture is not drawn twice
    ((means, steps, timesteps),) = found
    return means, steps, timesteps


def validated(callback: LossByTimestep, step: int, losses: list[float], *, sanity: bool = False) -> None:
    """Show it a validation of two batches, whose losses are spread over the chain."""
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    state = SimpleNamespace(fn=TrainerFn.FITTING)
    trainer: Any = SimpleNamespace(global_step=step, sanity_checking=sanity, state=state)
    callback.on_validation_start(trainer, module)
    for i in range(2):
        own = torch.tensor(losses[i::2])
        module.losses_measured = torch.arange(i, len(losses), 2), own
        callback.on_validation_batch_end(trainer, module, None, None, i)
    callback.on_validation_end(trainer, module)


def drawn_of_validation(callback: LossByTimestep, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr(loss_by_timestep.heat_map, "draw", lambda *a, **_: found.append(a))
    shown: list[str] = []
    monkeypatch.setattr(loss_by_timestep, "show_figure", lambda _, key, *__: shown.append(key))
    trainer: Any = SimpleNamespace(
        global_step=0, is_global_zero=True, callbacks=[], strategy=SimpleNamespace(barrier=int)
    )
    callback.on_train_end(trainer, Any)
    assert shown[:1] == ["diagnostics/val_loss_by_timestep"]
    return list(found[0])


def test_the_losses_of_validations_have_a_map_of_their_own(monkeypatch: pytest.MonkeyPatch):
    callback = LossByTimestep()
    validated(callback, 0, [9.0] * 4, sanity=True)
    fed(callback, range(3), 4)
    validated(callback, 0, [9.0] * 4, sanity=True)
    validated(callback, 3, [1.0, 2.0, 3.0, 4.0])
    state = callback.state_dict()
    validated(callback, 6, [8.0] * 4)  # lost
    callback = LossByTimestep()
    callback.load_state_dict(state)
    fed(callback, range(3, 6), 4)
    validated(callback, 6, [0.5, 1.0, math.nan, 2.0])
    validated(callback, 6, [0.5, 1.0, math.nan, 2.0])  # anew
    means, steps, timesteps = drawn_of_validation(callback, monkeypatch)
    np.testing.assert_equal(means, [[1, 2, 3, 4], [0.5, 1, math.nan, 2]])
    assert (steps.tolist(), timesteps.tolist()) == ([0, 3, 6], [0, 1, 2, 3, 4])


def test_many_validations_are_told_apart_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch):
    callback = LossByTimestep()
    fed(callback, range(1), 2)
    for i in range(1, 2 * COLUMNS + 4):
        validated(callback, 5 * i, [float(i), 1.0])
    means, steps, _ = drawn_of_validation(callback, monkeypatch)
    assert COLUMNS // 2 <= len(means) <= COLUMNS
    assert (steps[0], steps[-1], len(steps)) == (0, 5 * (2 * COLUMNS + 3), len(means) + 1)
    assert (np.diff(steps) > 0).all()
    for (begins, ends), (first, second) in zip(itertools.pairwise(steps), means, strict=True):
        inside = np.arange(begins // 5 + 1, ends // 5 + 1)
        assert (first, second) == (inside.mean(), 1.0)


def expected(seen: list[tuple[int, Any, Any]], steps: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    at = np.array([step for step, t, _ in seen for _ in t])
    t, losses = (torch.cat([entry[i] for entry in seen]).numpy() for i in (1, 2))
    found = np.full((len(steps) - 1, len(timesteps) - 1), np.nan)
    for k in range(found.shape[0]):
        for m in range(found.shape[1]):
            inside = (at >= steps[k]) & (at < steps[k + 1]) & (t >= timesteps[m]) & (t < timesteps[m + 1])
            inside &= np.isfinite(losses)
            if inside.any():
                found[k, m] = losses[inside].mean()
    return found


@pytest.mark.parametrize(
    ("steps", "T"), [(3, 1), (7, 10), (COLUMNS, 100), (COLUMNS + 1, 33), (AT_ONCE * 5 + 3, 1000)]
)
def test_means_are_those_of_the_losses_there(steps: int, T: int, monkeypatch: pytest.MonkeyPatch):  # noqa: N803
    callback = LossByTimestep()
    seen = fed(callback, range(steps), T, nan=True)
    means, columns, timesteps = drawn(callback, steps, monkeypatch)
    assert (columns[0], columns[-1], timesteps[0], timesteps[-1]) == (0, steps, 0, T)
    assert min(steps, COLUMNS // 2) <= len(means) <= COLUMNS
    np.testing.assert_allclose(means, expected(seen, columns, timesteps), rtol=1e-5)


def test_a_run_that_goes_on_goes_on_with_its_sums(monkeypatch: pytest.MonkeyPatch):
    whole, first, second = LossByTimestep(), LossByTimestep(), LossByTimestep()
    for steps in (range(150), range(150, 310)):
        fed(whole, steps, 50)
    fed(first, range(150), 50)
    state = first.state_dict()
    fed(first, range(150, 160), 50)  # lost
    second.load_state_dict(state)
    fed(second, range(150, 310), 50)
    for a, b in zip(drawn(whole, 310, monkeypatch), drawn(second, 310, monkeypatch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_of_the_sums_of_all_ranks_the_first_alone_goes_on(monkeypatch: pytest.MonkeyPatch):
    callback = LossByTimestep()
    fed(callback, range(4), 10)
    state = callback.state_dict()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, share in ((0, 1), (1, 0)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        one = LossByTimestep()
        one.load_state_dict(state)
        assert one._sums is not None
        assert torch.equal(one._sums, state["sums"] * share)


def test_a_run_that_was_begun_without_it_has_a_map_from_there_on(monkeypatch: pytest.MonkeyPatch):
    callback = LossByTimestep(10_000)
    fed(callback, range(10_000, 10_000), T=50)
    means, steps, _ = drawn(callback, 10_000, monkeypatch)
    assert len(steps) == means.shape[0] + 1 <= COLUMNS + 1
    assert np.isnan(means).all()
    seen = fed(callback, range(10_000, 10_002), T=50)
    means, _, _ = drawn(callback, 10_002, monkeypatch)
    assert np.nanmean(means[-1]) == pytest.approx(float(torch.cat([one[2] for one in seen]).mean()), abs=0.3)


def test_a_checkpoint_that_is_written_before_training_goes_on_holds_what_was_read():
    callback = LossByTimestep()
    fed(callback, range(3), 4)
    validated(callback, 3, [1.0, 2.0, 3.0, 4.0])
    state = callback.state_dict()
    callback = LossByTimestep()
    callback.load_state_dict(state)
    again = callback.state_dict()
    assert torch.equal(again["validations"], state["validations"])
    assert (again["edges"], again["width"]) == (state["edges"], state["width"])


def test_a_run_that_goes_on_with_a_validation_has_room_for_it(monkeypatch: pytest.MonkeyPatch):
    """One that was begun without this callback, and was ended between a checkpoint and its validation."""
    callback = LossByTimestep()
    fed(callback, range(50, 50), 4)
    validated(callback, 50, [1.0, 2.0, 3.0, 4.0])
    validated(callback, 60, [1.0, 2.0, 3.0, 4.0])
    means, steps, _ = drawn_of_validation(callback, monkeypatch)
    assert (len(means), steps.tolist()) == (2, [49, 50, 60])
