"""Every yaml in conf/ is composed, checked and built, without anyone adding it here."""

import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, composed
from lightning.pytorch import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf
from torch import nn

from ddpm import targets
from ddpm.app import check, groups
from ddpm.app.arguments import WHOLE
from ddpm.app.schema import PROGRAMS
from ddpm.data.conditions import Derived, Stored
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.training.loggers import provided

pytestmark = pytest.mark.e2e

CONF = ROOT / "conf"
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]
GIVEN = {
    **{
        ("data", option): ["data.path=somewhere"]
        for option in ("arrays", "folder", "npz", "archive", "stream", "latents")
    },
    ("data", "hub"): ["data.name=any/name"],
    ("guidance", "autoguidance"): ["guidance.ckpt=somewhere"],
    ("schedule", "from_file"): [f"schedule.path={ROOT / 'tests/diffusion/betas.csv'}"],
}
"""What options that cannot do without a person's word are given here."""

NEEDED = {"sample": ["ckpt=somewhere"], "evaluate": ["ckpt=somewhere"]}
"""What a program cannot do without."""

OPTIONAL_PACKAGES = {("logger", "mlflow"): "mlflow", ("logger", "tensorboard"): "tensorboard"}
"""Of extras that need not be installed."""


def program_of(group: str) -> str:
    """A program whose configuration has a group."""
    for name, program in PROGRAMS.items():
        if group in (*program.objects, *program.mappings) or (group in WHOLE and name == "train"):
            return name
    raise AssertionError(f"no program has a group {group}")


@cache
def with_option(group: str, option: str) -> dict[str, Any]:
    """The checked configuration of a program with an option of a group."""
    program = program_of(group)
    chosen = f"{group}=[{option}]" if group in PROGRAMS[program].mappings else f"{group}={option}"
    return composed(program, chosen, *NEEDED.get(program, []), *GIVEN.get((group, option), []))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_is_composed_and_checked(group: str, option: str):
    if package := OPTIONAL_PACKAGES.get((group, option)):
        pytest.importorskip(package)
    check.check_foreign_targets(with_option(group, option))


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, o in OPTIONS if g not in WHOLE])
def test_every_option_is_built(group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    if package := OPTIONAL_PACKAGES.get((group, option)):
        pytest.importorskip(package)
    node = with_option(group, option)[group]
    if group == "trainer":
        assert lightnings_trainer(node) is not None
        return
    if "_target_" not in node:  # several objects, or none
        assert bool(node) == (option not in ("none", "auto"))
        for name, child in node.items():
            constructor = targets.resolve(f"{group}.{name}", child["_target_"])
            of_run = provided(constructor, directory=tmp_path, run_name="run") if group == "logger" else {}
            built = targets.build(f"{group}.{name}", {**of_run, **child})
            assert isinstance(built, {"logger": Logger, "callbacks": Callback}.get(group, object))
        return
    node = {name: value for name, value in node.items() if name not in groups.SWITCHES.get(group, ())}
    given = {"in_channels": 3, "out_channels": 3} if group == "model" else {}
    with torch.device("meta" if group == "model" else "cpu"):
        built = targets.build(group, node, **given)
    assert built is not None
    if group == "optimizer":
        built([nn.Parameter(torch.zeros(2, 2))])
    elif group == "lr_schedule":
        built(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)).step()
    elif group == "ema":
        built(nn.Linear(1, 1)).update()


def lightnings_trainer(node: dict[str, Any]) -> Any:
    """The trainer that a preset describes, on the CPU: there need be no GPU where this runs."""
    ours = {"max_time", "profiler", "precision", "accelerator", "devices"}
    settings = {name: value for name, value in node.items() if name not in ours}
    beside = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return targets.build("trainer", settings, accelerator="cpu", devices=1, **beside)


NEEDED_BY_CONDITIONS = {"paired": "data.condition.key=edges", "vector": "data.condition.key=age"}
"""What an option says that has no default."""


def test_every_condition_is_composed_and_built(subtests: pytest.Subtests):
    """Its group stands within data, and `condition=OPTION` is what a person types."""
    for path in sorted((CONF / "data" / "condition").glob("*.yaml")):
        with subtests.test(condition=path.stem):
            words = [NEEDED_BY_CONDITIONS[path.stem]] if path.stem in NEEDED_BY_CONDITIONS else []
            node = composed("train", f"condition={path.stem}", *words)["data"]["condition"]
            assert (node is None) == (path.stem == "none")
            if node is not None:
                assert isinstance(targets.build("data.condition", node), Derived | Stored)
    typed, dotted = (composed("train", f"{key}=masked") for key in ("condition", "data.condition"))
    assert typed == dotted


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


DEFAULT_CALLBACKS = [
    "checkpoints", "samples", "diagnostics", "progress", "data_images", "forward", "schedule",
    "loss_by_timestep", "denoising", "nearest",
]  # fmt: skip


@pytest.mark.parametrize(
    ("override", "names"),
    [
        ("callbacks=default", DEFAULT_CALLBACKS),
        ("callbacks=[default,best]", [*DEFAULT_CALLBACKS, "best"]),
        ("callbacks=none", []),
    ],
)
@pytest.mark.parametrize("chosen", ["experiment=ddpm_cifar10", "experiment=smoke", "debug=limit"])
def test_callbacks_are_a_mapping(chosen: str, override: str, names: list[str]):
    assert list(composed("train", chosen, override)["callbacks"]) == names


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: str(path.relative_to(CONF)))
def test_every_yaml_says_what_it_is_for(path: Path):
    lines = [line for line in path.read_text().splitlines() if line != "# @package _global_"]
    assert lines[0].startswith("# "), "begin with a comment line"


DATA = sorted(path.stem for path in (CONF / "data").glob("*.yaml"))


@pytest.mark.parametrize("data", DATA)
def test_every_data_option_brings_a_recipe(data: str):
    """A network, an optimizer, how its rate moves, how long, and an average: nobody need know more."""
    assert (CONF / "recipe" / f"{data}.yaml").is_file()
    config = composed("train", f"data={data}", *GIVEN.get(("data", data), []))
    default = yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())
    steps = config["trainer"]["max_steps"]
    assert steps != default["max_steps"] or data.startswith("cifar10"), "the recipe says how long"
    assert 4 <= steps / config["callbacks"]["samples"]["every_n_steps"] <= 200
    assert 4 <= steps / config["callbacks"]["checkpoints"]["every_n_steps"] <= 200
    assert {"model", "optimizer", "lr_schedule"} <= config.keys()


def test_recipes_suit_the_size_of_the_images(subtests: pytest.Subtests):
    """Attention looks at all pairs of pixels: no data option brings it where there are more than 32x32."""
    for data in sorted(path.stem for path in (CONF / "data").glob("*.yaml")):
        config = composed("train", f"data={data}", *GIVEN.get(("data", data), []))
        size = config["data"].get("image_size") or 32
        for level in config["model"].get("attention_levels", ()):
            with subtests.test(data=data, level=level):
                assert size / 2**level <= 32
    assert composed("train", "data=celebahq")["optimizer"]["lr"] == 2e-5


def test_ones_own_pictures_do_not_get_the_digits_recipe():
    """README's line."""
    config = composed("train", "data=folder", "data.path=~/pictures", "data.image_size=64")
    assert config["model"] == composed("train", "model=small")["model"]
    assert config["lr_schedule"]["_target_"].endswith(".warmup")
    assert config["optimizer"]["lr"] == 2e-4
    assert config["ema"]["decay"] == 0.9999
    assert config["trainer"]["max_steps"] >= 100_000
    assert config["callbacks"]["samples"]["every_n_steps"] <= 5000


def test_a_recipe_is_chosen_by_the_data_and_overruled_by_experiment_and_words():
    digits = composed("train")
    assert digits["trainer"]["max_steps"] == 1300
    other = composed("train", "recipe=cifar10")
    assert other["data"] == {**digits["data"], "batch_size": 64}
    assert other["trainer"]["max_steps"] == 800_000
    assert other["model"]["channels"] == 128
    assert composed("train", "recipe=small_pictures", "model=tiny")["model"] == digits["model"]
    assert composed("train", "optimizer.lr=1e-5")["optimizer"]["lr"] == 1e-5
    assert composed("train", "optimizer=sgd")["optimizer"]["_target_"] == "torch.optim.SGD"
    smoke = composed("train", "experiment=smoke")
    assert (smoke["trainer"]["max_steps"], smoke["model"]["channels"]) == (20, 16)
    typed = composed("train", "experiment=smoke", "trainer.max_steps=7", "model=tiny")
    assert (typed["trainer"]["max_steps"], typed["model"]) == (7, digits["model"])


def test_a_data_option_of_ones_own_gets_the_recipe_for_pictures(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text(
        "defaults: [/loading, _self_]\n_target_: ddpm.data.sources.digits.Digits\nbatch_size: 32\n"
    )
    config = composed("train", "--config-dir", str(tmp_path), "data=mine")
    assert config["data"]["batch_size"] == 32
    pictures = composed("train", "recipe=pictures")
    for group in ("model", "optimizer", "lr_schedule", "ema", "trainer", "callbacks"):
        assert config[group] == pictures[group]
    assert (
        composed("train", "--config-dir", str(tmp_path), "data=mine", "recipe=digits")["trainer"]["max_steps"]
        == 1300
    )
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [digits, _self_]\ntrainer: {max_steps: 9}\n"
    )
    config = composed("train", "--config-dir", str(tmp_path), "data=mine")
    assert config["trainer"]["max_steps"] == 9
    assert config["model"] == composed("train")["model"]


def test_a_recipe_of_ones_own_that_lacks_a_group_is_told_where_to_name_it(tmp_path: Path):
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [/model: tiny, /optimizer: adam, /lr_schedule: warmup, /ema: fast]\n"
    )
    with pytest.raises(UsageError, match=r"schedule: cannot be left out; .* - /schedule: OPTION"):
        composed("train", "--config-dir", str(tmp_path), "recipe=mine")


@pytest.mark.parametrize("swaps", ["", ", override /model: tiny", ", override /optimizer: sgd"])
def test_so_does_one_that_an_experiment_chooses(tmp_path: Path, swaps: str):
    for group, name, text in (
        ("data", "mine", "defaults: [/loading, _self_]\n_target_: ddpm.data.sources.digits.Digits\n"),
        ("experiment", "own", f"# @package _global_\ndefaults: [override /data: mine{swaps}, _self_]\n"),
    ):
        (tmp_path / group).mkdir()
        (tmp_path / group / f"{name}.yaml").write_text(text)
    config = composed("train", "--config-dir", str(tmp_path), "experiment=own")
    pictures = composed("train", "recipe=pictures")
    assert config["trainer"] == pictures["trainer"]
    expected = composed("train", "model=tiny") if "model" in swaps else pictures
    assert config["model"] == expected["model"]
    (tmp_path / "experiment" / "own.yaml").write_text(
        "# @package _global_\ndefaults: [override /data: mine, override /modell: tiny, _self_]\n"
    )
    with pytest.raises(UsageError, match="modell"):
        composed("train", "--config-dir", str(tmp_path), "experiment=own")


@pytest.mark.parametrize(
    ("preset", "accelerator", "devices", "strategy"),
    [
        ("default", "auto", "auto", None),
        ("cpu", "cpu", 1, None),
        ("gpu", "gpu", 1, None),
        ("mps", "mps", 1, None),
        ("ddp", "gpu", "auto", "DDPStrategy"),
        ("ddp_sim", "cpu", 2, "DDPStrategy"),
    ],
)
def test_presets_of_the_trainer(preset: str, accelerator: str, devices: Any, strategy: str | None):
    config = composed("train", f"trainer={preset}")
    assert (config["trainer"]["accelerator"], config["trainer"]["devices"]) == (accelerator, devices)
    assert config["strategy"].get("_target_", "").rpartition(".")[2] == (strategy or "")
    assert config["trainer"]["max_steps"] == 1300, "the recipe still says how long"
    assert composed("train", f"trainer={preset}", "trainer.devices=3")["trainer"]["devices"] == 3


def test_presets_for_finding_mistakes():
    limited = composed("train", "debug=limit")
    assert limited["trainer"]["limit_train_batches"] == 0.01
    assert limited["trainer"]["detect_anomaly"] is True
    assert limited["logger"] == {}
    assert composed("train", "debug=fdr")["trainer"]["fast_dev_run"] is True
    assert composed("train", "debug=overfit")["trainer"]["overfit_batches"] == 1
    assert composed("train", "debug=profiler")["trainer"]["profiler"] == "simple"
    for preset in ("default", "fdr", "limit", "overfit", "profiler"):
        config = composed("train", f"debug={preset}", "experiment=smoke", "trainer.max_steps=3")
        assert config["trainer"]["max_steps"] == 3
        assert config["trainer"]["accelerator"] == "cpu"
        assert config["logger"] == {}


def test_null_is_none_where_a_group_may_be_empty():
    config = composed("train", "logger=null", "callbacks=null", "experiment=null", "strategy=null")
    assert (config["logger"], config["callbacks"], config["strategy"]) == ({}, {}, {})
    assert composed("train", "guidance=null") == composed("train", "guidance=none")
    assert composed("train", "ema=null")["ema"]["_target_"].endswith(".NoAverage")
    assert composed("train", "debug=null", "experiment=null") == composed("train")
    assert composed("train", "strategy=ddp", "strategy=null")["strategy"] == {}


def test_the_last_word_about_a_group_holds():
    assert composed("train", "experiment=smoke", "experiment=null") == composed("train")
    assert composed("train", "experiment=null", "experiment=smoke") == composed("train", "experiment=smoke")
    assert composed("train", "strategy=null", "strategy=ddp")["strategy"]
    assert composed("train", "schedule=linear", "schedule=cosine") == composed("train")


def test_an_option_is_chosen_with_or_without_a_plus():
    """As Hydra's own examples write `+experiment=...`."""
    plain = composed("train", "experiment=smoke", "schedule=cosine")
    assert composed("train", "+experiment=smoke", "++schedule=cosine") == plain


def test_the_papers_run_is_stated_whole():
    config = composed("train", "experiment=ddpm_cifar10")
    assert config["model"] == {
        "_target_": "ddpm.networks.unet.UNet",
        "channels": 128,
        "multipliers": [1, 2, 2, 2],
        "blocks": 2,
        "attention_levels": [1],
        "decoder_attention_levels": None,
        "middle_attention": True,
        "heads": 1,
        "channels_per_head": None,
        "decoder_heads": None,
        "scale_shift": False,
        "residual_resampling": False,
        "symmetric_padding": False,
        "dropout": 0.1,
        "norm_groups": 32,
        "norm_eps": 1e-6,
        "freq_shift": 1,
        "timestep_scale": 1.0,
        "gradient_checkpointing": False,
        "compile": None,
        "channels_last": None,
        "cuda_graphs": False,
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
    assert config["schedule"] == {
        "_target_": "ddpm.diffusion.schedules.linear",
        "num_timesteps": 1000,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "zero_terminal_snr": False,
        "shift": 1.0,
    }
    assert config["objective"]["_target_"].endswith("Epsilon")
    assert config["variance"]["_target_"].endswith("FixedLarge")
    assert config["weighting"]["_target_"].endswith("Simple")
    assert config["clip_x_0"] is True


def test_how_images_become_batches_is_stated_once_and_as_the_module_takes_it():
    """The keys that every data option has, their defaults, and what the check takes them for. One of them is
    for the trainer.
    """
    parameters = inspect.signature(ImageDataModule).parameters
    taken = {name: p.default for name, p in parameters.items() if name not in ("source", "seed")}
    stated = OmegaConf.to_container(OmegaConf.load(CONF / "loading.yaml"))
    assert stated == {**taken, "micro_batch": None}
    assert tuple(taken) == tuple(name for name in groups.SWITCHES["data"] if name != "micro_batch")


def objects(key: str, node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of ours that a configuration builds, with the key where it stands."""
    if isinstance(node, dict):
        if str(node.get("_target_", "")).startswith("ddpm."):
            yield key, node
        for name, child in node.items():
            yield from objects(f"{key}.{name}" if key else name, child)


@pytest.mark.parametrize(("group", "option"), [(g, o) for g, o in OPTIONS if g not in WHOLE])
def test_an_option_shows_every_key_that_can_be_set(group: str, option: str):
    """What `--cfg job` shows is all there is."""
    if package := OPTIONAL_PACKAGES.get((group, option)):
        pytest.importorskip(package)
    for key, node in objects("", with_option(group, option)):
        taken = targets.parameters(key, node["_target_"]).names
        given = taken[:1] if key in groups.FIRST_PROVIDED else groups.PROVIDED.get(key, ())
        shown = set(node) - set(targets.NODE_KEYS)
        assert shown == {*taken, *groups.SWITCHES.get(key, ())} - set(given), key


def test_the_trainers_settings_are_lightnings():
    from dataclasses import fields

    from lightning.pytorch import Trainer

    from ddpm.app.schema import TrainerSettings

    known = {field.name for field in fields(TrainerSettings)}
    assert known <= set(inspect.signature(Trainer).parameters)
    assert set(yaml.safe_load((CONF / "trainer" / "default.yaml").read_text())) - {"_target_"} == known
