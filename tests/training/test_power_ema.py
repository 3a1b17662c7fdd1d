"""Averages with power-function profiles: their formula, their snapshots, and others that are made of them."""

import math
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from models import make_module, make_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ddpm.errors import UsageError
from ddpm.training import snapshots
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.checkpoints import load
from ddpm.training.module import DDPM
from ddpm.training.posthoc import with_average
from ddpm.training.power_ema import PowerAverage, PowerEMA
from ddpm.training.power_profiles import LONGEST, Profile, combination, exponent, inner_products

LENGTHS = (0.03, 0.07, 0.15)
"""Of averages that are made afterwards and also followed."""


def profile(gamma: float, t: float, s: np.ndarray) -> np.ndarray:
    return np.where(s <= t, (gamma + 1) * s**gamma / t ** (gamma + 1), 0.0)


@pytest.mark.parametrize("sigma_rel", [0.01, 0.05, 0.1, 0.2, LONGEST])
def test_a_length_is_the_relative_deviation_of_its_profile(sigma_rel: float):
    gamma = exponent(sigma_rel)
    mean, square = ((gamma + 1) / (gamma + 1 + power) for power in (1, 2))
    assert math.sqrt(square - mean**2) == pytest.approx(sigma_rel, rel=1e-9)


@pytest.mark.parametrize("sigma_rel", [0, -0.1, 0.3, math.nan, "a"])
def test_a_length_that_no_average_has_is_refused(sigma_rel: Any):
    with pytest.raises(ValueError, match="sigma_rel"):
        exponent(sigma_rel)


def test_the_inner_product_is_the_integral_of_the_product():
    s = (np.arange(100_000) + 0.5) / 100_000 * 9
    some, others = [Profile(0.1, 5), Profile(0.2, 9)], [Profile(0.05, 9), Profile(0.07, 4), Profile(0.2, 9)]
    ours, theirs = ([profile(exponent(one.sigma_rel), one.t, s) for one in these] for these in (some, others))
    expected = np.array(ours) @ np.array(theirs).T / len(s) * 9
    np.testing.assert_allclose(inner_products(some, others), expected, rtol=1e-3)


def test_updates_give_the_integral_of_the_profile_over_each_step():
    net = nn.Linear(1, 1, bias=False).double()
    average = PowerAverage(net, 0.1)
    values = torch.randn(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for value in values:
        with torch.no_grad():
            net.weight.fill_(value)
        average.update()
    edges = (torch.arange(51, dtype=torch.float64) / 50) ** (average.gamma + 1)
    expected = (edges.diff() * values).sum()
    found = average.state_dict()["parameters"]["weight"]
    torch.testing.assert_close(found.squeeze(), expected, rtol=1e-12, atol=1e-12)


def trajectory(steps: int) -> Tensor:
    """A walk that slows down, as training is: float64 [steps, 40]."""
    noise = torch.randn(steps, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
    return 1 + t.log() + (noise / t.sqrt()).cumsum(0) * 0.1


def test_averages_made_afterwards_are_those_that_were_followed():
    walk = trajectory(800)
    net = nn.Linear(40, 1, bias=False).double()
    kept = PowerEMA(net)
    followed = {length: PowerAverage(net, length) for length in LENGTHS}
    given: list[tuple[Profile, Tensor]] = []
    for step, values in enumerate(walk, 1):
        with torch.no_grad():
            net.weight.copy_(values[None])
        for average in (kept, *followed.values()):
            average.update()
        if step % 25 == 0 or step == len(walk):
            given += [
                (Profile(float(length), step), tensors["weight"].clone())
                for length, tensors in kept.parameters().items()
            ]
    for length, average in followed.items():
        found = combination([one for one, _ in given], Profile(length, len(walk)))
        made = sum(weight * tensor for weight, (_, tensor) in zip(found.weights, given, strict=True))
        wanted = average.state_dict()["parameters"]["weight"]
        assert found.error < 0.02
        assert (made - wanted).norm() < 1e-3 * wanted.norm()
        nearest = min((tensor for _, tensor in given), key=lambda one: (one - wanted).norm())
        assert (made - wanted).norm() < 0.2 * (nearest - wanted).norm()  # no snapshot does as well


def test_the_lengths_that_are_kept_come_back_as_they_are():
    given = [Profile(length, t) for t in range(10, 101, 10) for length in (0.05, 0.1)]
    found = combination(given, Profile(0.05, 100))
    assert found.error < 1e-6
    assert found.weights == pytest.approx([0.0] * 18 + [1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sigma_rels": [0.1]}, r"ema\.sigma_rels=\[0.1\] must be at least two"),
        ({"sigma_rels": [0.1, 0.4]}, r"ema\.sigma_rels: sigma_rel=0.4 must be"),
        ({"sigma_rel": 0.07}, r"ema\.sigma_rel=0.07 must be one of"),
        ({"snapshot_every_n_steps": 0}, r"ema\.snapshot_every_n_steps=0 must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], told: str):
    with pytest.raises(ValueError, match=told):
        PowerEMA(nn.Linear(1, 1), **settings)


def test_the_network_computes_with_the_length_that_is_chosen():
    net = nn.Linear(2, 1)
    average = PowerEMA(net, sigma_rel=0.05)
    for _ in range(5):
        with torch.no_grad():
            net.weight.add_(1.0)
        average.update()
    own = net.weight.detach().clone()
    with average.swapped_in():
        inside = net.weight.detach().clone()
        with average.swapped_out():
            assert torch.equal(net.weight, own)
    assert torch.equal(inside, average.parameters()["0.05"]["weight"])
    assert not torch.equal(inside, average.parameters()["0.1"]["weight"])
    assert torch.equal(net.weight, own)


# In a training


class Followed(Callback):
    """Averages that are followed beside those that the training keeps."""

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.averages = {length: PowerAverage(pl_module.network, length) for length in LENGTHS}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        for average in self.averages.values():
            average.update()


class Tiny(nn.Module):
    """A network of few parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.layer(x_t) * (1 + t.view(-1, 1, 1, 1) / 100)


def module() -> DDPM:
    torch.manual_seed(0)
    made = make_module(Tiny())
    made.ema = PowerEMA(made.network, snapshot_every_n_steps=2)
    return made


def trained(directory: Path, steps: int, ckpt: Path | None = None, *callbacks: Callback) -> DDPM:
    made = module()
    images = torch.linspace(-1, 1, 4 * 64).view(4, 1, 8, 8)
    trainer = make_trainer(directory, steps, Checkpoints(every_n_steps=35 if steps > 30 else 7), *callbacks)
    trainer.fit(made, DataLoader(TensorDataset(images), batch_size=4), ckpt_path=ckpt)
    return made


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Followed]:
    directory, followed = tmp_path_factory.mktemp("uninterrupted"), Followed()
    trained(directory, 60, None, followed)
    return directory, followed


def test_averages_made_of_a_runs_snapshots_are_those_that_were_followed(
    uninterrupted: tuple[Path, Followed],
):
    directory, followed = uninterrupted
    checkpoint = load(directory / "checkpoints" / "last.ckpt")
    for length, average in followed.averages.items():
        made = with_average(checkpoint, directory, length)
        wanted = average.state_dict()["parameters"]
        found = {name: made["state_dict"][f"network.{name}"] for name in wanted}
        distance = math.sqrt(sum(float((found[name] - wanted[name]).norm() ** 2) for name in wanted))
        assert distance < 1e-3 * math.sqrt(sum(float(one.norm() ** 2) for one in wanted.values()))
        assert made["average"]["sigma_rel"] == length
        assert made["global_step"] == 60


def test_one_snapshot_at_a_time_is_in_memory(
    uninterrupted: tuple[Path, Followed], monkeypatch: pytest.MonkeyPatch
):
    """All of them together are larger than memory for a large network."""
    read, before = snapshots.read, list[weakref.ref[Tensor]]()

    def seen(path: Path) -> snapshots.Snapshot:
        assert all(one() is None for one in before)
        found = read(path)
        before.extend(weakref.ref(one) for average in found.averages.values() for one in average.values())
        return found

    monkeypatch.setattr(snapshots, "read", seen)
    with_average(load(uninterrupted[0] / "checkpoints" / "last.ckpt"), uninterrupted[0], 0.07)
    assert len(before) == 29 * 2 * 2


def test_a_run_that_goes_on_keeps_the_snapshots_of_one_that_was_never_interrupted(
    uninterrupted: tuple[Path, Followed], tmp_path: Path
):
    """Also where a killed start was further than its last checkpoint, and left a half-written file."""
    trained(tmp_path, 9)
    ahead = snapshots.path_of(tmp_path, 30)
    ahead.write_bytes(b"of a step that comes again")
    half = ahead.with_name(".step_00000010.pt.part")
    half.touch()
    trained(tmp_path, 13, tmp_path / "checkpoints" / "step_00000007.ckpt")
    whole = snapshots.kept(uninterrupted[0])
    assert list(whole) == list(range(2, 61, 2))
    assert list(snapshots.kept(tmp_path)) == list(range(2, 13, 2))
    assert not half.exists()
    for step, path in snapshots.kept(tmp_path).items():
        ours, theirs = snapshots.read(path), snapshots.read(whole[step])
        assert ours.num_updates == theirs.num_updates == step
        for length, parameters in theirs.averages.items():
            assert all(torch.equal(parameters[name], ours.averages[length][name]) for name in parameters)


def test_a_run_without_checkpoints_keeps_no_snapshots(tmp_path: Path):
    made = module()
    images = torch.zeros(4, 1, 8, 8)
    make_trainer(tmp_path, 2).fit(made, DataLoader(TensorDataset(images), batch_size=4))
    assert not (tmp_path / "averages").exists()


def test_what_cannot_be_made_is_told(uninterrupted: tuple[Path, Followed], tmp_path: Path):
    directory, _ = uninterrupted
    checkpoint = load(directory / "checkpoints" / "last.ckpt")
    with pytest.raises(UsageError, match=r"30 snapshots up to step 60 express .*; there are 0\.0\d+ to 0\.2"):
        with_average(checkpoint, directory, 0.001)
    with pytest.raises(UsageError, match=r"step=7: there are no averages of that step in .*but of 2, 4, 6"):
        with_average(checkpoint, directory, 0.05, step=7)
    with pytest.raises(UsageError, match=r"sigma_rel=0\.5 must be above 0"):
        with_average(checkpoint, directory, 0.5)
    made = with_average(checkpoint, directory, 0.05, step=10)
    assert made["global_step"] == 10
    with pytest.raises(UsageError, match=r"this checkpoint is the average of sigma_rel=0\.05 alone"):
        with_average(made, directory, 0.1)
    plain = {**checkpoint, "ema": {"num_updates": 3, "parameters": checkpoint["ema"]["parameters"]}}
    with pytest.raises(UsageError, match=r"has no snapshots .*ema=power"):
        with_average(plain, tmp_path, 0.05)


def test_a_damaged_snapshot_is_named(uninterrupted: tuple[Path, Followed], tmp_path: Path):
    snapshots.take_over(tmp_path, uninterrupted[0], up_to=9)
    assert list(snapshots.kept(tmp_path)) == [2, 4, 6, 8]
    path = snapshots.path_of(tmp_path, 4)
    whole = path.read_bytes()
    path.unlink()  # another name of a file that others read
    for content in (whole[:-100], b""):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"step_00000004\.pt: cannot be read"):
            snapshots.read(path)
    torch.save({"averages": {"0.1": {"a": 3}}, "num_updates": 4}, path)
    with pytest.raises(UsageError, match="holds no averages"):
        snapshots.read(path)


def test_another_kind_of_average_stands_for_all_lengths():
    first, second = nn.Linear(2, 1), nn.Linear(2, 1)
    made = partial(PowerEMA, sigma_rel=0.05)(first)
    made.load_state_dict({"num_updates": 3, "parameters": dict(second.named_parameters())})
    for parameters in made.parameters().values():
        assert torch.equal(parameters["weight"], second.weight)
