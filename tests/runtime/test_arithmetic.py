"""Arithmetic is counted as it is published; waiting is what it says; rows agree with themselves."""

import csv
import math
import threading
from pathlib import Path

import pytest
import torch
from models import make_module, make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ddpm.data.module import ImageDataModule
from ddpm.data.sources.digits import Digits
from ddpm.networks import DiT, UNet
from ddpm.runtime import arithmetic
from ddpm.runtime.arithmetic import (
    STEP,
    activation_bytes,
    flops_per_image,
    matmul_peak,
    training_bytes,
)
from ddpm.runtime.computing import DTYPES
from ddpm.runtime.memory import peak_memory
from ddpm.training.callbacks.data_wait import DataWait
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.loggers import MetricsCSV


def test_the_papers_network_takes_the_published_arithmetic():
    network = UNet(3, 3, channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention_levels=(1,), dropout=0.1)
    forward = flops_per_image(network, (3, 32, 32))
    assert forward == pytest.approx(12.11e9, rel=1e-3)
    assert STEP * forward == pytest.approx(36.3e9, rel=2e-3)
    assert network.training


def test_a_transformers_arithmetic_is_that_of_its_weights():
    """A multiplication and an addition for each weight and token, but those that the whole picture shares."""
    network = DiT(4, 8, width=32, depth=2, heads=2)
    tokens, vectors = 16, {"time", "modulation", "modulation_out"}
    expected = sum(
        2 * weight.numel() * (1 if vectors & set(name.split(".")) else tokens)
        for name, weight in network.named_parameters()
        if weight.ndim == 2
    )
    assert flops_per_image(network, (4, 8, 8)) == expected


class OfValues(nn.Module):
    """A network that cannot be run on shapes alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x) if t.max().item() < 1000 else x


class Uncopied(nn.Module):
    """A network that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
        self.lock = threading.Lock()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.conv(x)


class OfNothing(nn.Module):
    """A network without parameters."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return x + t.numpy()[0]


@pytest.mark.parametrize("network", [OfValues(), Uncopied(), OfNothing()])
def test_what_cannot_be_counted_disturbs_nobody(network: nn.Module):
    assert math.isnan(flops_per_image(network, (3, 8, 8)))
    assert math.isnan(activation_bytes(network, (3, 8, 8)))
    assert math.isnan(training_bytes(network, (3, 8, 8)))
    assert network.training


class Pixelwise(nn.Module):
    """Two convolutions with views between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.second(self.first(x).flatten(2).unflatten(2, x.shape[2:]))


def test_activations_are_what_lives_at_once():
    """Two feature maps at a time; a view takes nothing."""
    assert activation_bytes(Pixelwise(), (3, 16, 16)) == (8 + 4) * 256 * 4


class Chain(nn.Module):
    """Convolutions one after the other, with a dropout before each."""

    def __init__(self, length: int):
        super().__init__()
        layers = [layer for _ in range(length) for layer in (nn.Dropout(0.5), nn.Conv2d(3, 3, 1))]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.layers(x)


def test_training_keeps_what_the_backward_pass_needs():
    """Of a layer its input, and what that was dropped by; where nothing is kept, the length of a chain costs
    nothing.
    """
    values = 3 * 16 * 16
    more = training_bytes(Chain(9), (3, 16, 16)) - training_bytes(Chain(5), (3, 16, 16))
    assert more == 4 * values * (4 + 4)
    assert activation_bytes(Chain(9), (3, 16, 16)) == activation_bytes(Chain(5), (3, 16, 16))


def test_weights_and_gradients_are_no_part_of_what_an_image_takes():
    """A network of a million weights that keeps one small map."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1000, 1000))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x * self.scale.mean()

    assert training_bytes(Wide(), (1, 4, 4)) < 10 * 16 * 4


def test_activations_hold_the_attention_weights():
    shape = {"channels": 8, "multipliers": (1,), "blocks": 1, "norm_groups": 4, "heads": 8}
    network = UNet(3, 3, attention_levels=(0,), **shape)
    assert 8 * 256**2 * 4 * 2 < activation_bytes(network, (3, 16, 16)) < 8 * 256**2 * 4 * 4


def test_activations_of_the_papers_network_hold_the_skips():
    """Twelve maps wait for the decoder; what is computed on top of them is a few of the largest."""
    with torch.device("meta"):
        network = UNet(3, 3)
    waiting = 128 * (3 * 32**2 + 16**2) + 256 * (2 * 16**2 + 8**2 + 2 * 8**2 + 4**2 + 2 * 4**2)
    largest = 256 * 32**2  # of the upsampled
    found = activation_bytes(network, (3, 32, 32)) / 4
    assert waiting + largest < found < waiting + 6 * largest


def test_counting_changes_no_random_numbers():
    network = UNet(1, 1, channels=8, multipliers=(1, 2), blocks=1, norm_groups=4, dropout=0.5)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    flops_per_image(network, (1, 8, 8))
    training_bytes(network, (1, 8, 8))
    matmul_peak(torch.device("cpu"), "32-true")
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(("precision", "dtype"), DTYPES.items())
def test_the_peak_is_that_of_products_in_the_precision_of_the_run(
    precision: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    """Of random numbers. They take 0.2, 0.1, 0.4, ... s of a clock that is made up: the best counts."""
    asked = []
    times = iter([0, 0.2, 1, 1.1, 2, 2.4, 3, 3.4, 4, 4.4])
    monkeypatch.setattr(arithmetic.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(
        torch, "mm", lambda a, b: asked.append((a.dtype, a.shape, bool(a.float().std() > 0.9)))
    )
    assert matmul_peak(torch.device("cpu"), precision) == pytest.approx(2 * arithmetic.SMALLEST**3 / 0.1)
    assert set(asked) == {(dtype, (arithmetic.SMALLEST, arithmetic.SMALLEST), True)}


@pytest.mark.parametrize(
    ("flops", "size"),
    [(4e11, 1024), (4e12, 2048), (1e13, 4096), (7e14, 8192), (1e16, 8192)],
    ids=["two cores", "a Mac", "a laptop's GPU", "a data centre's", "a later one"],
)
def test_the_product_suits_the_device(flops: float, size: int, monkeypatch: pytest.MonkeyPatch):
    """On a machine of so many operations a second, whose first product of a size takes a second more."""
    now, sizes = [0.0], []

    def mm(a: Tensor, b: Tensor) -> None:
        now[0] += 2 * len(a) ** 3 / flops + (len(a) not in sizes)
        sizes.append(len(a))

    monkeypatch.setattr(arithmetic.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: torch.empty(shape, device="meta"))
    assert matmul_peak(torch.device("cpu"), "32-true") == pytest.approx(flops)
    assert max(sizes) == size


def test_waiting_is_from_the_end_of_a_step_to_the_next_batch_without_validation():
    now = [0.0]
    waiting = DataWait(clock=lambda: now[0])

    def at(time: float, hook: str, *arguments: object) -> None:
        now[0] = time
        getattr(waiting, hook)(None, None, *arguments)

    at(5, "on_train_batch_start", None, 0)  # before the first step nothing is known
    at(10, "on_train_batch_end", None, None, 0)
    at(12, "on_train_batch_start", None, 1)
    at(20, "on_train_batch_end", None, None, 1)
    at(21, "on_validation_start")
    at(40, "on_validation_end")
    at(44, "on_train_batch_start", None, 2)
    assert waiting.taken() == 2 + 1 + 4
    assert waiting.taken() == 0


def test_rows_agree_with_themselves(tmp_path: Path):
    module, waiting, file = make_module(), DataWait(), MetricsCSV(tmp_path / "metrics.csv")
    trainer = make_trainer(tmp_path, 4, waiting)
    trainer.callbacks[0] = TrainingRows(waiting)
    trainer.loggers = [file]
    trainer.fit(module, datamodule=ImageDataModule(Digits(), batch_size=32, seed=0))
    with file.path.open(newline="") as lines:
        (row,) = ({name: float(value) for name, value in row.items()} for row in csv.DictReader(lines))
    assert row["perf/images_per_second"] == pytest.approx(32 * row["perf/steps_per_second"])
    per_image = row["perf/flops_per_second"] / row["perf/images_per_second"]
    assert per_image == pytest.approx(3 * flops_per_image(module.network, (1, 8, 8)))
    assert row["perf/mfu"] > 0
    assert 0 < row["perf/data_wait"] < 1
    assert row["perf/peak_memory_gib"] == pytest.approx(peak_memory(torch.device("cpu")) / 2**30, rel=0.2)


def test_speeds_are_known_of_a_loader_of_ones_own(tmp_path: Path):
    trainer, file = make_trainer(tmp_path, 4, accumulation=2), MetricsCSV(tmp_path / "metrics.csv")
    trainer.loggers = [file]
    trainer.fit(make_module(), DataLoader(torch.zeros(48, 1, 8, 8), batch_size=6))
    with file.path.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert float(row["perf/images_per_second"]) == pytest.approx(12 * float(row["perf/steps_per_second"]))
    assert float(row["perf/mfu"]) > 0


def test_peak_memory_has_seen_what_was_held():
    held = torch.ones(2**26)  # 256 MiB
    assert peak_memory(held.device) > held.nbytes


def test_a_network_in_evaluation_stays_there():
    network = UNet(1, 1, channels=8, multipliers=(1, 2), blocks=1, norm_groups=4).eval()
    flops_per_image(network, (1, 8, 8))
    assert not network.training
