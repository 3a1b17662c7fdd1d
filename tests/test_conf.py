"""Every yaml in conf/ is composed, checked and built, without anyone adding it here."""

from pathlib import Path

import pytest
import torch
from conftest import ROOT, composed
from hydra.utils import instantiate
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from ddpm import targets
from ddpm.app import check
from ddpm.training.loggers import provided

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


MAPPINGS = ("logger", "callbacks")
"""Groups each entry of which is an object."""


@pytest.mark.parametrize(
    ("group", "option"), [(g, o) for g, o in OPTIONS if g not in ("experiment", "trainer", *MAPPINGS)]
)
def test_every_option_is_built(group: str, option: str):
    node = with_option(group, option)[0][group]
    node = node[option] if group == "metrics" else node
    provided = {"data": {"seed": 0}, "model": {"in_channels": 3, "out_channels": 3}}.get(group, {})
    with torch.device("meta" if group == "model" else "cpu"):
        assert instantiate(node, **provided, _convert_="all") is not None


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, o in OPTIONS if g in MAPPINGS])
def test_every_entry_of_a_mapping_is_built(group: str, option: str, tmp_path: Path):
    if option == "mlflow":
        pytest.importorskip("mlflow")
    nodes = with_option(group, option)[0][group]
    # an experiment may set what an entry does that is not chosen
    entries = {name: node for name, node in nodes.items() if "_target_" in node}
    assert bool(entries) == (option != "none")
    for name, node in entries.items():
        constructor = targets.resolve(f"{group}.{name}", node["_target_"])
        run = {"directory": tmp_path, "run_name": "run"}
        given = provided(constructor, **run) if group == "logger" else {}
        built = instantiate({**given, **node}, _convert_="all")
        assert isinstance(built, Logger if group == "logger" else Callback)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["logger=many"], ["wandb", "tensorboard", "csv"]),
        (["logger=[wandb,csv]", "logger.wandb.entity=team"], ["wandb", "csv"]),
        (["logger=none"], []),
        (["+logger.mine._target_=lightning.pytorch.loggers.CSVLogger"], ["wandb", "mine"]),
    ],
)
def test_loggers_are_a_mapping(overrides: list[str], names: list[str]):
    assert list(composed("train", *overrides)["logger"]) == names


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("callbacks=default", ["checkpoints", "samples", "progress"]),
        ("callbacks=[default,best]", ["checkpoints", "samples", "progress", "best"]),
        ("callbacks=none", []),
    ],
)
def test_callbacks_are_a_mapping(override: str, names: list[str]):
    assert list(composed("train", "experiment=ddpm_cifar10", override)["callbacks"]) == names


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
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"
    assert config["optimizer"]["betas"] == [0.9, 0.999]
    assert config["lr_schedule"] == {
        "_target_": "ddpm.training.lr_schedules.warmup",
        "_partial_": True,
        "warmup_steps": 5000,
    }
    assert config["data"]["batch_size"] == 128
    assert config["data"]["horizontal_flip"] is True
    assert config["ema"]["decay"] == 0.9999
    assert config["trainer"]["gradient_clip_val"] == 1.0
    assert config["trainer"]["max_steps"] == 800_000
    assert config["schedule"] == {"_target_": "ddpm.diffusion.schedules.linear", "num_timesteps": 1000}
    assert config["objective"]["_target_"].endswith("Epsilon")
    assert config["variance"]["_target_"].endswith("FixedLarge")
    assert config["weighting"]["_target_"].endswith("Simple")
    assert config["clip_x_0"] is True


def test_the_trainers_settings_are_lightnings():
    import inspect
    from dataclasses import fields

    from lightning.pytorch import Trainer

    from ddpm.app.schema import TrainerSettings

    known = {field.name for field in fields(TrainerSettings)}
    assert known <= set(inspect.signature(Trainer).parameters)
    assert set(OmegaConf.load(CONF / "trainer" / "default.yaml")) - {"_target_"} <= known
