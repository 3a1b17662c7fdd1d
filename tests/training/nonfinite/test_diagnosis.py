"""Where a step is first not finite."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from models import make_module, make_trainer, small_unet
from torch import Tensor, nn

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.training.nonfinite.diagnosis import Layers
from ddpm.training.nonfinite.guard import NonFiniteError


class Twice(nn.Module):
    """Two layers, and an operation that belongs to neither."""

    def __init__(self, between: Any):
        super().__init__()
        self.between = between
        self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.between(self.one(x)))


def looked_at(network: nn.Module, x: Tensor) -> Layers:
    layers = Layers()
    with layers.watching(network):
        network(x)
    return layers


def test_the_first_layer_that_is_not_finite():
    network = Twice(lambda x: x)
    with torch.no_grad():
        network.one.weight.fill_(3e38)
    x = torch.zeros(4, 2)
    x[2] = 4.0
    layers = looked_at(network, x)
    assert layers.first == (
        "the output of one (Linear) is not finite, and what it was given is",
        2,
    )
    assert list(layers.largest) == ["one (Linear)", "two (Linear)", "the network (Twice)"]
    assert not network._forward_hooks
    assert not network.one._forward_pre_hooks


def test_what_lies_between_layers():
    layers = looked_at(Twice(lambda x: x / (x - x)), torch.ones(4, 2))
    assert layers.first is not None
    assert layers.first[0].startswith("what two (Linear) is given is not finite, and no layer before it gave")


def test_all_is_finite():
    assert looked_at(Twice(lambda x: x), torch.ones(4, 2)).first is None


class Overflow(nn.Module):
    """Multiplies by what is finite; its result is not."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1e30 * 1e30


class Fragile(nn.Module):
    """A network that divides by zero on the way back only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)
        self.register_buffer("uses", torch.zeros(1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.uses += 1
        return self.last((self.first(x) * 0).sqrt())


def raised_by(directory: Path, network: nn.Module, **settings: Any) -> tuple[str, Any]:
    module = make_module(network)
    trainer = make_trainer(directory, 3, **settings)
    with pytest.raises(NonFiniteError) as raised:
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=16, seed=0))
    return str(raised.value), module


def test_a_layer_of_a_run_is_named_with_its_image(tmp_path: Path):
    network = small_unet()
    network.conv_out = nn.Sequential(network.conv_out, Overflow())
    nn.init.ones_(network.conv_out[0].weight)
    said, _ = raised_by(tmp_path, network)
    assert "step 1: the output of conv_out.1 (Overflow) is not finite, and what it was given is" in said
    assert ", first for image 0 of the batch (t=" in said


def test_a_gradient_that_arises_on_the_way_back_is_named_where_it_does(tmp_path: Path):
    said, module = raised_by(tmp_path, Fragile())
    assert "step 1: the gradient of first." in said
    assert "is not finite, the first on the way back" in said
    assert module.network.uses == 1  # looking leaves buffers as they were
    assert module.network.training


def test_micro_batches_are_told_apart(tmp_path: Path):
    module = make_module()
    own = module.losses
    counted = []

    def losses(*arguments: Any) -> Tensor:
        counted.append(1)
        found: Tensor = own(*arguments)
        return (
            found + torch.where(torch.arange(len(found)) == 1, torch.nan, 0.0) if len(counted) == 2 else found
        )

    module.losses = losses
    trainer = make_trainer(tmp_path, 3, accumulation=2)
    with pytest.raises(NonFiniteError, match=r"step 1: the loss of image 9 of the batch"):
        trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=16, seed=0))


class Changes(Callback):
    """Spoils a gradient behind the backward pass."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        pl_module.get_parameter("network.conv_in.bias").grad[0] = torch.inf


def test_what_nothing_computed_is_said_to_have_come_from_outside(tmp_path: Path):
    trainer = make_trainer(tmp_path, 3, Changes())
    with pytest.raises(NonFiniteError, match=r"the gradient of conv_in\.bias is not finite; computed again"):
        trainer.fit(make_module(), datamodule=ImageDataModule(Digits(), batch_size=16, seed=0))


def test_what_cannot_be_looked_at_is_bad_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*arguments: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("ddpm.training.nonfinite.diagnosis.look", fails)
    with pytest.raises(NonFiniteError, match=r"could not be looked for .RuntimeError: out of memory"):
        make_trainer(tmp_path, 3, Changes()).fit(
            make_module(), datamodule=ImageDataModule(Digits(), batch_size=16, seed=0)
        )
