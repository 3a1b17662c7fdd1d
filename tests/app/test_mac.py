"""What the programs do on a Mac whose GPU torch and Lightning have found."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import composed
from lightning.fabric.accelerators.mps import MPSAccelerator as FabricMPS
from lightning.pytorch.accelerators import MPSAccelerator

from ddpm.app import train
from ddpm.app.run_directory import Place
from ddpm.runtime import arithmetic
from ddpm.runtime.arithmetic import matmul_peak
from ddpm.runtime.computing import AS_IT_IS, choose
from ddpm.runtime.device import default_device
from ddpm.runtime.memory import memory_of, peak_memory

MPS = torch.device("mps")


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A Mac's GPU that says what it was asked; nothing can be computed there."""
    asked: list[str] = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for accelerator in (FabricMPS, MPSAccelerator):
        monkeypatch.setattr(accelerator, "is_available", staticmethod(lambda: True))
        monkeypatch.setattr(accelerator, "parse_devices", staticmethod(lambda devices: [0]))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 16 << 30)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 3 << 30)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: asked.append("synchronize"))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: asked.append("manual_seed"))
    return asked


@pytest.mark.parametrize("words", [(), ("trainer=mps",), ("trainer.accelerator=gpu",)])
def test_training_takes_the_gpu_as_it_is(
    words: tuple[str, ...], mac: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In float32, neither compiled nor in another layout, with no memory pinned for another kind of GPU."""
    seen: list[Any] = []
    monkeypatch.setattr(train, "_fit", lambda *arguments: seen.append(arguments) or 0)
    config = composed("train", "experiment=smoke", "data.num_workers=0", "logger=none", *words)
    train.prepare(config, Place(tmp_path))()
    [(trainer, _, data, _, _, _, computing, _)] = seen
    assert trainer.strategy.root_device.type == "mps"
    assert trainer.world_size == 1
    assert computing == AS_IT_IS
    assert trainer.precision == "32-true"
    data.trainer = trainer
    assert data.lives_on_device
    data.device_share = 0.0
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert not loader.pin_memory


def test_programs_take_it_by_themselves(mac: list[str]):
    assert default_device() == MPS
    assert choose(MPS, 10**9, -1) == AS_IT_IS


def test_its_memory_and_speed_are_asked_of_it(mac: list[str], monkeypatch: pytest.MonkeyPatch):
    assert memory_of(MPS) == 16 << 30
    assert peak_memory(MPS) == 3 << 30
    randn, generator = torch.randn, torch.Generator()
    monkeypatch.setattr(torch, "Generator", lambda device: generator)
    monkeypatch.setattr(
        torch, "randn", lambda *size, dtype, device, generator: randn(*size, dtype=dtype, generator=generator)
    )
    monkeypatch.setattr(arithmetic, "SMALLEST", 64)
    monkeypatch.setattr(arithmetic, "LARGEST", 64)
    assert 0 < matmul_peak(MPS, "32-true") < float("inf")
    assert mac == ["synchronize"] * 10
