"""The configuration that a run left, and what is typed beside it.

It may be a stranger's: Hydra never composes it, and nothing in it is resolved or built here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from ddpm import migration, options
from ddpm.app import check
from ddpm.app.arguments import Arguments
from ddpm.app.grammar import absolute
from ddpm.app.groups import WHOLE
from ddpm.app.hydra_errors import first_lines
from ddpm.errors import UsageError

OWN = "config.yaml"
"""The file of a run directory that holds its configuration."""


def run_configuration(arguments: Arguments) -> Path | None:
    """The file that --config-dir and --config-name lead to, where it is the configuration that a run left."""
    if arguments.config_dir is None or arguments.config_name is None:
        return None
    file = arguments.config_dir / Path(arguments.config_name).with_suffix(".yaml")
    if not file.is_file():
        return None
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({first_lines(error)})") from error
    return file if isinstance(values, dict) and "_target_" in (values.get("trainer") or ()) else None


def own_file(arguments: Arguments, config: DictConfig, program: str) -> Path | None:
    """The file of the configuration that a run continues with, or is repeated from; None for what is typed.

    `ckpt=RUN_DIR` alone continues with what the run directory says. With an experiment beside it the whole
    configuration is what is typed.
    """
    if program != "train":
        return None
    if (file := run_configuration(arguments)) is not None:
        return file
    path = _continued_path(arguments, config)
    if path is None:
        return None
    directory = path.parent if path.is_file() else path
    own = (directory.parent if directory.name == "checkpoints" else directory) / OWN
    return own if own.is_file() else None


def own_of_file(arguments: Arguments, config: DictConfig, program: str) -> dict[str, Any] | None:
    """The configuration inside a checkpoint that no `config.yaml` lies with; it takes torch to read it."""
    path = _continued_path(arguments, config) if program == "train" else None
    if path is None or not (path.is_file() or any((path / "checkpoints").glob("*.ckpt"))):
        return None
    from ddpm.run import found

    own = dict(found(path)[1]["config"])
    own.pop("allow_targets", None)
    _refuse_interpolations(path, own)
    return own


def read_own(file: Path) -> dict[str, Any]:
    """The configuration in a run's `config.yaml`, plain values only: whatever it says to Hydra is left out.

    Raises:
        UsageError: where it is none.
    """
    try:
        values = options.read(file)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({first_lines(error)})") from error
    if "trainer" not in values:
        raise UsageError(f"{file}: is not the configuration of a run")
    values = {
        name: value for name, value in values.items() if name not in ("defaults", "hydra", "allow_targets")
    }
    _refuse_interpolations(file, values)
    return migration.migrated(values)


def continued(
    base: Mapping[str, Any],
    values: Mapping[str, Any],
    config: DictConfig,
    arguments: Arguments,
    overrides: Sequence[str],
) -> dict[str, Any]:
    """A run's own configuration with what is typed beside it.

    Args:
        base: the run's own.
        values: what composing made of the command line, plain.
        config: the same as Hydra has it, with its interpolations.
        arguments: the command line; says which keys are groups.
        overrides: the job's.
    """
    result = OmegaConf.create({**values, **base})
    for key in ("ckpt", "init", "preflight"):  # of a command, never of a run
        result[key] = values.get(key)
    for override in Arguments(**{**vars(arguments), "overrides": tuple(overrides)}).parsed:
        key = override.key_or_group
        if key.split(".")[0] in ("hydra", *WHOLE):
            continue
        if arguments.group(key):  # the whole option, its interpolations meeting the run's own values
            with open_dict(result):
                result[key] = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False)).get(key)
        elif override.is_delete():
            raise UsageError(f"~{key}: a run's own configuration is changed by {key}=VALUE")
        else:
            OmegaConf.update(result, key, OmegaConf.select(config, key), force_add=True)
    return check.plain(result)


def _continued_path(arguments: Arguments, config: DictConfig) -> Path | None:
    """What `ckpt=` names, where the run is to go on with its own configuration."""
    ckpt = config.get("ckpt")
    whole = any(override.key_or_group in WHOLE and override.value() for override in arguments.parsed)
    return None if not isinstance(ckpt, str) or whole or arguments.config_name is not None else absolute(ckpt)


def _refuse_interpolations(file: Path, node: Any, key: str = "") -> None:
    """A run's configuration is resolved; `${oc.env:...}` in a stranger's would read this machine's secrets.

    Raises:
        UsageError: for the first value that asks for another.
    """
    if isinstance(node, str) and "${" in node:
        raise UsageError(f"{file}: {key} holds an interpolation, which no run writes; spell its value out")
    if isinstance(node, Mapping):
        for name, child in node.items():
            _refuse_interpolations(file, child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list):
        for index, child in enumerate(node):
            _refuse_interpolations(file, child, f"{key}[{index}]")
