"""The heat map has the mean loss of each part of the chain and of the training, whatever their lengths."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

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
