"""Which keys a constructor takes, read from our sources without importing them."""

import inspect
from pathlib import Path

import pytest
import torch
import yaml

from ddpm import targets
from ddpm.app.run_directory import Place
from ddpm.app.trainer import build_loggers
from ddpm.errors import UsageError

CONF = Path(__file__).parents[1] / "conf"


def all_targets() -> set[str]:
    found: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if "_target_" in node:
                found.add(node["_target_"])
            for child in node.values():
                walk(child)

    for file in CONF.rglob("*.yaml"):
        walk(yaml.safe_load(file.read_text()))
    return found


@pytest.mark.parametrize("target", sorted(all_targets() - {"datetime.timedelta"}))
def test_reading_a_signature_gives_what_importing_it_gives(target: str):
    assert targets.check_name("key", target) == target
    found = targets.parameters("key", target)
    parameters = inspect.signature(targets.resolve("key", target)).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    assert found.names == tuple(p.name for p in named)
    assert found.required == {p.name for p in named if p.default is p.empty}


def test_what_is_written_in_c_takes_any_key():
    """Not every Python tells the signature of timedelta."""
    found = targets.parameters("strategy.timeout", "datetime.timedelta")
    assert not found.required
    assert found.any or "seconds" in found.names


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "pickle.loads",
        "hydra.utils.instantiate",
        "lightning.pytorch.utilities.migration.migrate_checkpoint",
        "lightning.fabric.utilities.cloud_io._load",
        "ddpm.app.loading.load",
        "ddpm.training.building.rebuild",
        "ddpm.training.checkpoints.load",
        "ddpm.data.paths.existing_file",
        "ddpmx.evil",
        "torch.nnx.evil",
        None,
        3,
    ],
)
def test_what_is_outside_the_allowed_packages_is_refused(target: object):
    with pytest.raises(UsageError, match="is not in an allowed package"):
        targets.check_name("model", target)


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.trainer.trainer.os.getcwd",
        "lightning.pytorch.callbacks.timer.timedelta",
        "lightning.pytorch.callbacks.timer.re.compile",
        "torch.nn.functional.torch.load",
        "torch.optim.adam.torch",
        "ddpm.training.ema.torch.load",
        "ddpm.training.loggers.metrics_csv.Path",
        "torch.nn.Modul",
        "lightning.pytorch.strategies.fsdp._lazy_load",
        "lightning.pytorch.strategies.launchers.subprocess_script._launch_process_observer",
        "torch.nn.parallel.distributed._get_device_index",
    ],
)
def test_a_walk_through_what_a_module_imports_is_refused(target: str):
    with pytest.raises(UsageError, match="_target_"):
        targets.resolve("model", target)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("objective", "lightning.pytorch.loggers.CSVLogger"),
        ("schedule", "torch.nn.Linear"),
        ("sampler", "ddpm.data.sources.folder.Folder"),
        ("sampler.x[0].y", "lightning.pytorch.callbacks.ModelCheckpoint"),
        ("callbacks.x", "lightning.pytorch.loggers.CSVLogger"),
        ("model", "torch.nn.utils._deprecation_utils.lazy_deprecated_import"),
        ("model", "torch.nn.modules.module.__getattr__"),
        ("model", "torch.nn..Linear"),
        ("model", "torch.nn.Linear\0"),
        ("data", "ddpm.data.sources.../../../x"),
    ],
)
def test_a_place_takes_what_belongs_there(key: str, target: str):
    with pytest.raises(UsageError, match=r"_target_=.*: is (not in an allowed package|no public class)"):
        targets.check_name(key, target)


def test_nothing_that_could_be_built_imports_or_makes_folders_where_it_is_not_at_home():
    """What Lightning keeps beside its loggers makes a folder; torch has what imports by name."""
    targets.check_name("logger.x", "lightning.pytorch.loggers.csv_logs.ExperimentWriter")
    with pytest.raises(UsageError, match="ExperimentWriter is no Lightning logger"):
        build_loggers(
            {
                "logger": {"x": {"_target_": "lightning.pytorch.loggers.csv_logs.ExperimentWriter"}},
                "tags": [],
            },
            Place(Path("nowhere")),
            {},
            None,
            {},
        )


def test_a_package_of_ones_own_is_admitted_by_name():
    targets.check_name("model", "mypackage.networks.Net", ["mypackage"])
    with pytest.raises(UsageError):
        targets.check_name("model", "mypackage2.networks.Net", ["mypackage"])


def test_what_is_nested_is_built_unless_it_is_said_not_to_be():
    nested = {"_target_": "torch.nn.ReLU"}
    node = {"_target_": "torch.nn.Sequential", "_args_": [nested], "_convert_": "all"}
    assert isinstance(targets.build("x", node)[0], torch.nn.ReLU)
    made = targets.build("x", {"_target_": "torch.nn.ParameterDict", "_partial_": True, "parameters": nested})
    assert isinstance(made.keywords["parameters"], torch.nn.ReLU)
    for recursive, kind in ((True, torch.nn.ReLU), (False, dict)):
        node = {"_target_": "torch.nn.Sequential", "_partial_": True, "_recursive_": recursive, "arg": nested}
        assert isinstance(targets.build("x", node).keywords["arg"], kind)
