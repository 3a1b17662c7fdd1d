"""Every yaml in conf/ is composed, checked and built, without anyone adding it here."""

import inspect
from pathlib import Path

import pytest
import torch
from conftest import ROOT, composed
from hydra.utils import instantiate
from omegaconf import OmegaConf

from ddpm import targets
from ddpm.app import check
from ddpm.data.module import ImageDataModule

CONF = ROOT / "conf"
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]
GIVEN = {
    **{("data", option): ["data.path=somewhere"] for option in ("folder", "npz", "archive", "stream")},
    ("data", "hub"): ["data.name=any/name"],
    ("schedule", "from_file"): [f"schedule.path={ROOT / 'tests/diffusion/betas.csv'}"],
}
"""What options that cannot do without a person's word are told here."""


PRIMARY = {"metrics": ("evaluate", ["ckpt=somewhere"])}
"""The configuration that has a group, and what it cannot do without, where it is not that of training."""


def with_option(group: str, option: str) -> tuple[dict, dict]:
    """The configuration with an option of a group, and without."""
    primary, needed = PRIMARY.get(group, ("train", []))
    given = GIVEN.get((group, option), [])
    return composed(primary, f"{group}={option}", *needed, *given), composed(primary, *needed)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_is_composed_and_checked(group: str, option: str):
    config, reference = with_option(group, option)
    check.check_keys(config, reference)
    check.check_foreign_targets(config)


@pytest.mark.parametrize(
    ("group", "option"), [(g, o) for g, o in OPTIONS if g not in ("experiment", "trainer", "callbacks")]
)
def test_every_option_is_built(group: str, option: str):
    node = with_option(group, option)[0][group]
    node = node[option] if group == "metrics" else node
    if "_target_" not in node:
        assert (group, option) == ("logger", "none")
        return
    provided = {"model": {"in_channels": 3, "out_channels": 3}}.get(group, {})
    node = {name: value for name, value in node.items() if name not in check.SWITCHES.get(group, ())}
    with torch.device("meta" if group == "model" else "cpu"):
        assert instantiate(node, **provided, _convert_="all") is not None


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_says_what_it_is_for(path: Path):
    option = path.parent != CONF and path.parent.name not in ("trainer", "callbacks")
    assert not option or path.read_text().startswith("# "), "begin with a comment line"


def test_the_papers_run_is_stated_whole():
    config = composed("train", "experiment=ddpm_cifar10")
    assert config["model"] == {
        "_target_": "ddpm.networks.unet.UNet",
        "channels": 128,
        "multipliers": [1, 2, 2, 2],
        "blocks": 2,
        "attention_levels": [1],
        "dropout": 0.1,
    }
    assert config["optimizer"]["lr"] == 2e-4
    assert config["optimizer"]["warmup_steps"] == 5000
    assert config["data"]["batch_size"] == 128
    assert config["data"]["horizontal_flip"] is True
    assert config["ema_decay"] == 0.9999
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["trainer"]["max_steps"] == 800_000
    assert config["schedule"] == {"_target_": "ddpm.diffusion.schedules.linear", "num_timesteps": 1000}
    assert config["objective"]["_target_"].endswith("Epsilon")
    assert config["variance"]["_target_"].endswith("FixedLarge")
    assert config["weighting"]["_target_"].endswith("Simple")
    assert config["clip_x_0"] is True


def test_how_images_become_batches_is_stated_once_and_as_the_module_takes_it():
    """The keys that every data option has, their defaults, and what the check takes them for."""
    parameters = inspect.signature(ImageDataModule).parameters
    taken = {name: p.default for name, p in parameters.items() if name not in ("source", "seed")}
    stated = OmegaConf.to_container(OmegaConf.load(CONF / "loading.yaml"))
    assert stated == taken
    assert tuple(taken) == check.SWITCHES["data"]


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "data"])
def test_a_data_option_shows_every_key_that_can_be_set(option: str):
    settings = with_option("data", option)[0]["data"]
    takes = targets.parameters("data", settings["_target_"]).names
    assert set(settings) == {"_target_", *takes, *check.SWITCHES["data"]}


def test_the_trainers_settings_are_lightnings():
    from dataclasses import fields

    from lightning.pytorch import Trainer

    from ddpm.app.schema import TrainerSettings

    known = {field.name for field in fields(TrainerSettings)}
    assert known <= set(inspect.signature(Trainer).parameters)
    assert set(OmegaConf.load(CONF / "trainer" / "default.yaml")) - {"_target_"} <= known
