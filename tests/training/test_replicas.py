"""The backward pass of nothing, behind which torch has planned how gradients are summed."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from models import make_module
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm.training import replicas


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1)
        self.passes = 0

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        self.passes += 1
        return self.conv(self.norm(x_t + 1))


def trainer_of(module: Any, world_size: int, *, static_graph: bool = False) -> Any:
    model = DistributedDataParallel(module, static_graph=static_graph)
    precision = SimpleNamespace(forward_context=nullcontext)
    return SimpleNamespace(
        strategy=SimpleNamespace(model=model), world_size=world_size, lightning_module=module,
        precision_plugin=precision,
    )  # fmt: skip


@pytest.mark.parametrize("static_graph", [False, True])
@pytest.mark.parametrize("classes", [None, ["a", "b"]])
def test_it_leaves_all_as_it_was(static_graph: bool, classes: list[str] | None):
    module = make_module(Normalised(), classes=classes)
    trainer = trainer_of(module, 3, static_graph=static_graph)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    replicas.plan(trainer, 4)
    assert module.network.passes == (2 if static_graph else 1)
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_two_sum_alike_in_any_order():
    module = make_module(Normalised())
    replicas.plan(trainer_of(module, 2), 4)
    assert module.network.passes == 0
