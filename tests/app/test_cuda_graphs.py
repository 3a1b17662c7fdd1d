"""CUDA graphs are refused where they cannot be, before anything is computed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ddpm.app.train import _check_graphs
from ddpm.errors import UsageError
from ddpm.runtime.computing import Computing


@pytest.mark.parametrize(
    ("device", "devices", "accumulated", "compiles", "refusal"),
    [
        ("cuda", 1, 1, True, None),
        ("cpu", 1, 1, True, "is for NVIDIA GPUs, and this is cpu; use false"),
        ("cuda", 1, 1, False, r"leave out model\.compile=false"),
        ("cuda", 4, 1, True, "is for one device, and there are 4; use false"),
        ("cuda", 1, 8, True, r"gradients of 8 parts; use false, or .*data\.micro_batch"),
    ],
)
def test_cuda_graphs_are_refused_where_gradients_outlive_a_pass(
    device: str, devices: int, accumulated: int, compiles: bool, refusal: str | None
):
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device)),
        world_size=devices,
        accumulate_grad_batches=accumulated,
    )
    _check_graphs(trainer, Computing("32-true", False, compiles))  # which has none
    asked = Computing("32-true", False, compiles, cuda_graphs=True)
    if refusal is None:
        _check_graphs(trainer, asked)
        return
    with pytest.raises(UsageError, match=rf"^model\.cuda_graphs=true: .*{refusal}"):
        _check_graphs(trainer, asked)
