"""What version 0.1 left is read by this one: its runs go on, its checkpoints draw."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, composed, only_run, run_here

import ddpm
from ddpm.app.groups import SWITCHES
from ddpm.data.pixels.shaping import Shaping
from ddpm.data.sources.hub import Hub
from ddpm.errors import UsageError
from ddpm.migration import migrated
from ddpm.run import found
from ddpm.training.module import DDPM

RUN = ROOT / "tests" / "fixtures" / "run_0_1"


def config_of_0_1() -> dict[str, Any]:
    return yaml.safe_load((RUN / "config.yaml").read_text())


def losses(file: Path) -> dict[int, float]:
    with file.open(newline="") as opened:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(opened)}


def trained(monkeypatch: pytest.MonkeyPatch, cwd: Path, *words: str) -> Path:
    """The run directory that train.py leaves, in this process, on one CPU."""
    monkeypatch.chdir(cwd)
    assert run_here(monkeypatch, "train", *words) == 0
    return only_run(cwd)


@pytest.mark.e2e
def test_a_run_of_0_1_continues_as_it_would_have_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    directory = trained(monkeypatch, tmp_path, f"ckpt={RUN}", "trainer.max_steps=20")
    then, now = losses(RUN / "metrics_20_steps.csv"), losses(directory / "metrics.csv")
    assert list(now) == list(range(1, 21))
    for step in range(1, 21):
        assert now[step] == pytest.approx(then[step], rel=1e-6), step
    assert found(directory)[1]["global_step"] == 20
    record = json.loads((directory / "run.json").read_text())
    assert record["continued_from"] == str(RUN / "checkpoints" / "last.ckpt")
    assert migrated(yaml.safe_load((directory / "config.yaml").read_text())) == yaml.safe_load(
        (directory / "config.yaml").read_text()
    )


@pytest.mark.e2e
def test_a_run_of_0_1_is_repeated_and_started_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "again").mkdir()
    directory = trained(
        monkeypatch, tmp_path / "again", "--config-dir", str(RUN), "--config-name", "config",
        "trainer.max_steps=3",
    )  # fmt: skip
    then, now = losses(RUN / "metrics_20_steps.csv"), losses(directory / "metrics.csv")
    assert now == pytest.approx({step: then[step] for step in (1, 2, 3)}, rel=1e-6)
    (tmp_path / "new").mkdir()
    directory = trained(
        monkeypatch, tmp_path / "new", f"init={RUN}", "experiment=smoke", "model.channels=4",
        "model.norm_groups=2", "trainer.max_steps=1", "trainer.devices=1", "trainer.accelerator=cpu",
        "optimizer.lr=1e-12", "logger=none", "callbacks.samples=null",
    )  # fmt: skip
    theirs = found(RUN)[1]["ema"]["parameters"]
    ours = found(directory)[1]
    assert ours["global_step"] == 1
    for name, average in theirs.items():
        torch.testing.assert_close(ours["state_dict"][f"network.{name}"], average, atol=1e-6, rtol=0)


def test_a_checkpoint_of_0_1_draws():
    run = ddpm.load(RUN, device="cpu")
    assert run.step == 10
    images = run.sample(4, sampler="ddim", num_steps=3)
    assert images.shape == (4, 1, 8, 8)
    module = DDPM.load_from_checkpoint(RUN / "checkpoints" / "last.ckpt", map_location="cpu")
    theirs = found(RUN)[1]["ema"]["parameters"]
    for name, value in module.ema.state_dict()["parameters"].items():
        assert torch.equal(value, theirs[name])
    assert module.ema.decay == 0.9


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["experiment=ddpm_cifar10", "logger=many"],
        ["data=folder", "data.path=somewhere", "ema=none", "strategy=ddp"],
        ["experiment=digits_conditional", "lr_schedule=cosine", "callbacks=[default,best]"],
    ],
)
def test_a_configuration_of_today_stays_as_it_is(words: list[str]):
    config = composed("train", *words)
    assert migrated(config) == config
    once = migrated(config_of_0_1())
    assert migrated(once) == once


def test_every_name_moves():
    then = config_of_0_1()
    then["optimizer"] = {
        "_target_": "ddpm.training.optimizers.adam_one_cycle",
        "_partial_": True,
        "total_steps": 10,
        "betas": [0.8, 0.9],
    }
    then["logger"] = {
        "_target_": "ddpm.training.loggers.WandbLogger",
        "mode": "offline",
        "project": "mine",
    }
    then["callbacks"]["samples"] = {
        "_target_": "ddpm.training.grids.SampleGrids",
        "n": 4,
        "sampler": {"_target_": "ddpm.diffusion.samplers.ddim.DDIM", "num_steps": 2, "to_x_0": True},
    }
    then["data"] = {"_target_": "ddpm.data.folder.Folder", "path": "x", "image_size": 8}
    now = migrated(then)
    assert "ema_decay" not in now
    assert now["ema"]["decay"] == 0.9
    assert now["optimizer"]["_target_"] == "torch.optim.Adam"
    assert (now["optimizer"]["lr"], now["optimizer"]["betas"]) == (2e-3, [0.8, 0.9])
    assert now["optimizer"]["fused"] is True
    assert now["lr_schedule"] == {
        "_target_": "ddpm.training.lr_schedules.one_cycle",
        "_partial_": True,
        "total_steps": 10,
        "warmup_fraction": 0.3,
    }
    assert now["logger"]["wandb"]["project"] == "mine"
    assert now["callbacks"]["samples"] == {
        "_target_": "ddpm.training.callbacks.samples.SampleGrids",
        "n": 4,
        "final": True,  # the last grid by the run's own sampler, as then
        "sampler": {"_target_": "ddpm.diffusion.samplers.ddim.DDIM", "num_steps": 2},
    }
    assert now["data"] == {
        "_target_": "ddpm.data.sources.folder.Folder",
        "path": "x",
        "image_size": 8,
        "horizontal_flip": True,
    }
    assert now["strategy"] == {}
    assert now["tags"] == []
    assert now["trainer"]["gradient_clip_algorithm"] == "norm"
    assert now["trainer"]["max_steps"] == 10


@pytest.mark.parametrize("version_0_1", [True, False])
def test_the_part_to_train_on_is_called_split(version_0_1: bool):
    """Since after 0.1, and in runs of versions between too."""
    from ddpm.app.check import check_keys

    config = config_of_0_1() if version_0_1 else composed("train", "experiment=smoke")
    hub = composed("train", "data=hub", "data.name=x/y", "data.image_size=8")["data"]
    new = ("resize", "crop", "value_range", "split", "validation_split", "cache_limit")
    old = {name: value for name, value in hub.items() if name not in new}
    old |= {"train_split": "extra", "validation_split": "test"}
    if version_0_1:
        old["_target_"] = "ddpm.data.hub.Hub"
    config["data"] = old
    data = migrated(config)["data"]
    assert data == {**{name: value for name, value in hub.items() if name not in new}, "split": "extra",
                    "validation_split": "test|none"}  # fmt: skip
    source = Hub(
        **{name: value for name, value in data.items() if name not in SWITCHES["data"] + ("_target_",)}
    )
    assert (source.split, source.validation_split) == ("extra", "test|none"), "else a share, as then"
    assert source.shaping == Shaping((8, 8)), "what such runs did: lanczos, centre"
    now = migrated({**config, "data": {**old, "train_split": "train"}})
    check_keys({k: v for k, v in now.items() if k not in ("defaults", "hydra")}, "train")
    assert migrated(now) == now


def test_an_old_key_that_is_typed_is_answered_with_the_new_one():
    with pytest.raises(UsageError, match=r"data\.train_split: is now data\.split"):
        composed("train", "data=hub", "data.name=x/y", "data.train_split=train")


def test_what_is_migrated_passes_the_check():
    """And says everything that the program asks a configuration for."""
    from ddpm.app.check import check_keys

    now = migrated({k: v for k, v in config_of_0_1().items() if k not in ("defaults", "hydra")})
    check_keys(now, "train")
    assert now.keys() == composed("train").keys() - {"allow_targets"}


@pytest.mark.parametrize(
    ("key", "node", "message"),
    [
        ("sampler", {"_target_": "ddpm.diffusion.samplers.ddim.DDIM", "to_x_0": False}, "to_x_0=False"),
        ("strategy", {"_target_": "ddpm.training.strategies.fancy"}, "strategies.fancy"),
        ("model", {"_target_": "ddpm.networks.unet.VNet"}, "networks.unet.VNet"),
    ],
)
def test_what_has_no_successor_is_refused_in_one_message(
    key: str, node: dict[str, Any], message: str, tmp_path: Path
):
    shutil.copytree(RUN, tmp_path / "run")
    config = {**config_of_0_1(), key: node}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError, match=rf"{key}.*{message}.*is of version 0\.1.*cannot be read"):
        composed("train", f"ckpt={tmp_path / 'run'}")
    checkpoint = torch.load(RUN / "checkpoints" / "last.ckpt", weights_only=True)
    torch.save({**checkpoint, "config": {**checkpoint["config"], key: node}}, tmp_path / "old.ckpt")
    with pytest.raises(UsageError, match=rf"ckpt=.*{key}.*{message}.*is of version 0\.1"):
        ddpm.load(tmp_path / "old.ckpt")


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_arrays_are_read_by_one_source(version: str):
    old = "ddpm.data.npz.Npz" if version == "0.1" else "ddpm.data.sources.npz.Npz"
    config = config_of_0_1() if version == "0.1" else composed("train")
    config["data"] = {"_target_": old, "path": "a.npz", "image_key": "x", "batch_size": 4}
    now = migrated(config)["data"]
    assert now["_target_"] == "ddpm.data.sources.arrays.Arrays"
    assert (now["path"], now["image_key"], now["batch_size"]) == ("a.npz", "x", 4)
    assert now.get("horizontal_flip") is (True if version == "0.1" else None)
