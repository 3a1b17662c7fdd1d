"""Every optimizer of torch is made and trains, or is refused in one message."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from models import make_module
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ddpm.training.optimizers import make_optimizer

REFUSED = {
    "LBFGS": "LBFGS needs to compute the loss several times",
    "Muon": "Muon needs matrices",
    "SparseAdam": "SparseAdam needs sparse gradients",
}
OPTIMIZERS = sorted(
    name
    for name, value in vars(torch.optim).items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and name != "Optimizer"
)


def fitted(directory: Path, optimizer: Any, **settings: Any) -> float:
    """How far five steps moved the weights."""
    module = make_module()
    module.optimizer, module.lr_schedule = optimizer, None
    before = nn.utils.parameters_to_vector(module.network.parameters()).detach().clone()
    trainer = Trainer(
        max_steps=5,
        accelerator="cpu",
        default_root_dir=directory,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
        **settings,
    )
    trainer.fit(module, DataLoader(TensorDataset(torch.rand(40, 1, 8, 8) * 2 - 1), batch_size=8))
    after = nn.utils.parameters_to_vector(module.network.parameters()).detach()
    assert after.isfinite().all()
    return float((after - before).norm())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_torch_trains_or_says_why_not(tmp_path: Path, name: str):
    make = partial(getattr(torch.optim, name), lr=1e-3)
    if name in REFUSED:
        with pytest.raises((ValueError, RuntimeError), match=REFUSED[name]):
            fitted(tmp_path, make)
    else:
        assert fitted(tmp_path, make) > 0


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_fused_optimizers_are_clipped_in_mixed_precision(tmp_path: Path, name: str):
    make = partial(getattr(torch.optim, name), lr=1e-3, fused=True)
    assert fitted(tmp_path, make, precision="bf16-mixed") > 0


@pytest.mark.parametrize("lr", [0, -1e-3, float("nan")])
def test_a_rate_that_is_not_above_zero_is_refused(lr: float):
    with pytest.raises(ValueError, match=rf"^optimizer\.lr={lr} must be above 0$"):
        make_optimizer(partial(torch.optim.Adam, lr=lr), [nn.Parameter(torch.zeros(1))])
