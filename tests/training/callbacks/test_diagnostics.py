"""Norms of the network's parts are right, and change nothing."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from models import make_module, make_trainer, small_unet
from torch import nn

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.networks.dit import DiT
from ddpm.training.callbacks.diagnostics import Diagnostics, blocks
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.ema import NoAverage
from ddpm.training.module import DDPM


def test_blocks_are_children_and_members_of_lists():
    found = blocks(small_unet())
    assert list(found)[:4] == ["time", "conv_in", "encoder.0", "encoder.1"]
    assert sorted(i for indices in found.values() for i in indices) == list(
        range(len(list(small_unet().parameters())))
    )


def test_neighbours_of_a_long_list_are_one_block():
    with torch.device("meta"):
        network = DiT(1, 1, patch_size=2, width=32, depth=12, heads=2)
    layers = [name for name in blocks(network) if name.startswith("layers")]
    assert layers == [f"layers.{i:02d}-{i + 1:02d}" for i in range(0, 12, 2)]


def test_any_module_has_blocks():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.first, self.stack = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
            self.again = self.first  # is told once

    assert blocks(Own()) == {"own": [0], "first": [1, 2], "stack": [3, 4, 5, 6]}


class Seen(EveryNSteps):
    """Keeps what is needed to work the values out again."""

    def __init__(self) -> None:
        super().__init__(1)
        self.losses: list[float] = []
        self.logged: dict[str, float] = {}
        self.before: list[torch.Tensor] = []
        self.expected: dict[str, float] = {}

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        self.before = [p.detach().clone() for p in pl_module.network.parameters()]
        named = list(pl_module.network.named_parameters())
        self.expected = {
            "gradient_norm/conv_in": _norm([p.grad for n, p in named if n.startswith("conv_in.")]),
            "gradient_norm/encoder.0": _norm([p.grad for n, p in named if n.startswith("encoder.0.")]),
        }

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        assert isinstance(module, DDPM)
        now = [p.detach() for p in module.network.parameters()]
        average = module.ema.state_dict().get("parameters", {}).values()
        self.expected["parameter_norm/conv_in"] = _norm(module.network.conv_in.parameters())
        self.expected["update_ratio"] = _norm(a - b for a, b in zip(now, self.before, strict=True)) / _norm(
            now
        )
        if average:
            self.expected["ema_distance"] = _norm(a - b for a, b in zip(now, average, strict=True)) / _norm(
                now
            )
        self.losses.append(float(module.train_loss.total))
        metrics = trainer.callback_metrics
        self.logged = {name: float(metrics[name]) for name in metrics if name.startswith("diagnostics/")}


def _norm(tensors: Any) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def train(directory: Path, module: DDPM, *before: Any, steps: int = 6) -> Seen:
    seen = Seen()
    make_trainer(directory, steps, *before, seen).fit(
        module, datamodule=ImageDataModule(Digits(), batch_size=8, seed=0)
    )
    return seen


def test_the_norms_are_right_and_the_losses_bit_equal(tmp_path: Path):
    with_them, without = make_module(), make_module()
    seen = train(tmp_path / "a", with_them, Diagnostics(every_n_steps=3))
    assert len(seen.expected) == 5
    for name, value in seen.expected.items():
        assert seen.logged[f"diagnostics/{name}"] == pytest.approx(value, rel=1e-4), name
    assert seen.losses == train(tmp_path / "b", without).losses
    for ours, theirs in zip(with_them.parameters(), without.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_where_nothing_is_averaged_there_is_no_distance(tmp_path: Path):
    module = make_module()
    module.ema = NoAverage(module.network)
    logged = train(tmp_path, module, Diagnostics(every_n_steps=2), steps=2).logged
    assert "diagnostics/update_ratio" in logged
    assert "diagnostics/ema_distance" not in logged


def test_it_looks_every_n_steps_and_copies_for_these_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looked = []
    diagnostics = Diagnostics(every_n_steps=4)
    monkeypatch.setattr(diagnostics, "on_step", partial(_note, looked, diagnostics))
    train(tmp_path, make_module(), diagnostics, steps=9)
    assert looked == [(4, True), (8, True)]
    assert diagnostics._copy is None


def _note(
    looked: list[tuple[int, bool]], diagnostics: Diagnostics, trainer: Any, module: Any, step: int
) -> None:
    looked.append((step, diagnostics._copy is not None))
    diagnostics._copy = None
