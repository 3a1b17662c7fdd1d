"""Bits per dimension at the end of training are those that evaluate.py measures."""

import math
import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import first_everyday
from models import make_module, make_trainer

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.evaluation.bits_per_dim import BitsPerDim
from ddpm.evaluation.nll import NLL
from ddpm.runtime.sharing import Sharing
from ddpm.training.metrics import RunningMean
from ddpm.training.module import DDPM


@pytest.fixture
def data() -> ImageDataModule:
    return ImageDataModule(Digits(), batch_size=32, seed=0)


def measured(module: DDPM, data: ImageDataModule, directory: Path, n: int) -> float:
    with module.eval().evaluating():
        found = NLL(5, n)(
            module, data, seed=module.seed, batch_size=n, directory=directory,
            sharing=Sharing(directory / secrets.token_hex(4)),
        )  # fmt: skip
    return float(found["bits_per_dim"])


def test_they_are_logged_at_the_last_step(data: ImageDataModule, tmp_path: Path):
    module = make_module()
    trainer = make_trainer(tmp_path, 3, BitsPerDim(n=24, num_steps=5))
    trainer.fit(module, datamodule=data)
    logged = float(trainer.callback_metrics["val/bits_per_dim"])
    assert logged == pytest.approx(measured(module, data, tmp_path, 24), rel=1e-6)


@pytest.mark.parametrize("world_size", first_everyday([3, 2, 5]))
def test_several_ranks_measure_each_image_once_and_as_often_as_each_other(
    world_size: int, data: ImageDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ranks one after the other, and their sums added here."""
    module, sums, rounds = make_module(), [], []
    monkeypatch.setattr("ddpm.evaluation.bits_per_dim.images_at_once", lambda module: 4)
    monkeypatch.setattr("ddpm.evaluation.bits_per_dim.log_scalars", lambda trainer, row: None)

    def keep(means: dict[str, RunningMean], device: torch.device) -> dict[str, float]:
        (mean,) = means.values()
        sums.append((float(mean.total), mean.count))
        return {"val/bits_per_dim": math.nan}

    monkeypatch.setattr("ddpm.evaluation.bits_per_dim.reduce", keep)
    for rank in range(world_size):
        calls: list[range] = []
        callback = BitsPerDim(n=22, num_steps=5)
        bound = callback.metric.bound

        def counted(
            module: DDPM, images: Any, indices: range, *rest: Any, of: Any = bound, to: Any = calls
        ) -> Any:
            to.append(indices)
            return of(module, images, indices, *rest)

        monkeypatch.setattr(callback.metric, "bound", counted)
        trainer: Any = SimpleNamespace(
            datamodule=data,
            world_size=world_size,
            global_rank=rank,
            is_global_zero=rank == 0,
            callbacks=[],
            strategy=SimpleNamespace(broadcast=lambda size: size),
        )
        callback.on_train_end(trainer, module)
        rounds.append(len(calls))
    assert len(set(rounds)) == 1
    assert sum(count for _, count in sums) == 22
    mean = sum(total for total, _ in sums) / 22
    assert mean == pytest.approx(measured(module, data, tmp_path, 22), rel=1e-5)


def test_what_cannot_be_measured_is_told_before_training(data: ImageDataModule, tmp_path: Path):
    for callback, said in ((BitsPerDim(n=361), "360 images"), (BitsPerDim(num_steps=100), "99 steps")):
        with pytest.raises(ValueError, match=said):
            make_trainer(tmp_path, 1, callback).fit(make_module(), datamodule=data)
    loader = torch.utils.data.DataLoader(torch.zeros(8, 1, 8, 8), batch_size=4)
    with pytest.raises(ValueError, match=r"held out"):
        make_trainer(tmp_path, 1, BitsPerDim()).fit(make_module(), loader)
