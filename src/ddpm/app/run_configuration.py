"""The configuration that a run left, and what is typed beside it.

It may be a stranger's: Hydra never composes it, and nothing in it is resolved or built here. That of an
imported run, which is part of one, Hydra composes once it is known to hold nothing but values.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeGuard, cast

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from ddpm import bounded, migration, options
from ddpm.app import check
from ddpm.app.arguments import Arguments
from ddpm.app.grammar import absolute
from ddpm.app.groups import WHOLE
from ddpm.app.hydra_errors import first_lines
from ddpm.app.schema import PROGRAMS
from ddpm.errors import UsageError
from ddpm.options import CONF

OWN = "config.yaml"
"""The file of a run directory that holds its configuration."""

GROUPS_OF_IMPORT = ("schedule", "objective", "variance", "weighting", "model", "data", "experiment")
"""Groups that the configuration of an imported run may swap."""

WRITTEN_BY_0_1 = {"run", "job"}
"""Keys of the `hydra:` part that version 0.1 wrote into it; later versions write none."""


def run_configuration(arguments: Arguments) -> Path | None:
    """The file that --config-dir and --config-name lead to, where it is the configuration that a run left.

    Raises:
        UsageError: where it cannot be read, or what stands there tells Hydra something.
    """
    if (file := _primary(arguments)) is None:
        return None
    values = bounded.yaml_values(file)
    if "_target_" not in (values.get("trainer") or ()):
        return None
    _refuse_words_to_hydra(file, values)
    return file


@contextmanager
def primary(arguments: Arguments, program: str) -> Iterator[tuple[list[Path], str]]:
    """Where Hydra finds a program's configuration, and its name: the directories of options, the first first.

    The configuration that a run left is ours alone to read; that of an imported one, which Hydra composes,
    is checked and then lies alone, so that nothing else in its directory is found.

    Raises:
        UsageError: where it holds what import did not write.
    """
    if not arguments.is_run:
        name = arguments.config_name or program
        if run_configuration(arguments) is not None:
            yield [CONF], program
            return
        # Hydra finds a primary configuration in its first directory only
        yield sorted(arguments.directories, key=lambda one: not (one / f"{name}.yaml").is_file()), name
        return
    file = _primary(arguments)
    if file is None:
        raise UsageError(
            f"--config-dir {arguments.config_dir}: is a run directory, whose files are no options; "
            f"--config-dir {arguments.config_dir} --config-name config runs it again, "
            f"ckpt={arguments.config_dir} goes on with it"
        )
    if run_configuration(arguments) is not None:
        yield [CONF], program
        return
    _check_imported(file, bounded.yaml_values(file))
    with TemporaryDirectory() as alone:
        (Path(alone) / OWN).write_bytes(bounded.contents(file))
        yield [Path(alone), CONF], "config"


def _primary(arguments: Arguments) -> Path | None:
    """The file that --config-dir and --config-name lead to, if there is anything."""
    if arguments.config_dir is None or arguments.config_name is None:
        return None
    file = arguments.config_dir / Path(arguments.config_name).with_suffix(".yaml")
    return file if os.path.lexists(file) else None


def _refuse_words_to_hydra(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse a run's configuration that tells Hydra what no run of this program does: Hydra would build it.

    Raises:
        UsageError: naming the key.
    """
    said = values.get("hydra")
    if "hydra" in values and not _is_of_0_1(said):
        key = next((name for name in said if name not in WRITTEN_BY_0_1), None) if _is_mapping(said) else None
        raise UsageError(
            f"{file}: {'hydra' if key is None else f'hydra.{key}'} is told to Hydra, and no run writes that "
            "there; it is not read. Take it out if you trust the rest"
        )
    if "defaults" in values and values["defaults"] != ["run", "_self_"]:  # of version 0.1
        raise UsageError(
            f"{file}: defaults lists other files, and no run writes that there; it is not read. Take it out "
            "if you trust the rest"
        )


def _is_of_0_1(said: Any) -> bool:
    """Whether a `hydra:` part is what version 0.1 wrote: the program's name, and a run's directory."""
    return (
        _is_mapping(said)
        and said.keys() == WRITTEN_BY_0_1
        and said["job"] == {"name": "train"}
        and _is_mapping(said["run"])
        and said["run"].keys() == {"dir"}
        and re.fullmatch(r"\$\{run_dir:[\w,.-]*\}", str(said["run"]["dir"])) is not None
    )


def _is_mapping(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _check_imported(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse a configuration in a run directory that is neither a run's nor what import writes.

    Raises:
        UsageError: naming the key.
    """
    known = PROGRAMS["train"]
    names = {field.name for field in fields(known.settings)} - {"allow_targets"}
    for key in values:
        if key not in names and key not in (*known.objects, *known.mappings, "defaults"):
            raise UsageError(
                f"{file}: {key} is no key of an imported run's configuration; it is not read. Take it out if "
                "you trust the rest"
            )
    listed = values.get("defaults", [])
    for entry in listed if isinstance(listed, list) else [None]:
        if not _is_of_import(entry):
            raise UsageError(f"{file}: defaults lists what import does not write; it is not read")
    _refuse_interpolations(file, values)


def _is_of_import(entry: Any) -> bool:
    """Whether an entry of a defaults list swaps one of our groups, and nothing else."""
    if entry in ("train", "_self_"):
        return True
    if not isinstance(entry, Mapping) or len(entry) != 1:
        return False
    ((key, option),) = entry.items()
    group = str(key).removeprefix("override ")
    return group in GROUPS_OF_IMPORT and (option is None or option in options.options(group))


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
    own = run_directory_of(path) / OWN
    return own if os.path.lexists(own) else None


def own_of_file(arguments: Arguments, config: DictConfig, program: str) -> dict[str, Any] | None:
    """The configuration inside a checkpoint that no `config.yaml` lies with; it takes torch to read it."""
    path = _continued_path(arguments, config) if program == "train" else None
    if path is None or not (path.is_file() or any((path / "checkpoints").glob("*.ckpt"))):
        return None
    from ddpm.run import found

    own = dict(found(path, whole=False)[1]["config"])
    own.pop("allow_targets", None)
    _refuse_interpolations(path, own)
    return own


def run_directory_of(path: Path) -> Path:
    """The run directory that a path names, or that a checkpoint or its folder lies in."""
    directory = path.parent if path.is_file() else path
    return directory.parent if directory.name == "checkpoints" else directory


def read_own(file: Path) -> dict[str, Any]:
    """The configuration in a run's `config.yaml`, plain values only: whatever it says to Hydra is left out.

    Raises:
        UsageError: where it is none.
    """
    written = bounded.yaml_values(file)
    if "trainer" not in written:
        raise UsageError(f"{file}: is not the configuration of a run")
    _refuse_words_to_hydra(file, written)
    told = ("defaults", "hydra", "allow_targets")  # the first two as version 0.1 wrote them
    _refuse_interpolations(file, {name: value for name, value in written.items() if name not in told})
    try:
        values = options.parsed(bounded.text(file))
    except (OSError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise UsageError(f"{file}: cannot be read ({first_lines(error)})") from error
    values = {name: value for name, value in values.items() if name not in told}
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
    for key in ("ckpt", "init", "preflight", "verbose"):  # of a command, never of a run
        result[key] = values.get(key)
    if not result["ckpt"] and (base.get("data") or {}).get("micro_batch") is not None:
        result["trainer"]["accumulate_grad_batches"] = 1  # a run that begins finds its own
    for override in Arguments(**{**vars(arguments), "overrides": tuple(overrides)}).parsed:
        key = override.key_or_group
        if key.split(".")[0] in ("hydra", *WHOLE):
            continue
        if arguments.group(key) and "/" in key:  # within another, of which the rest stays
            within = key.replace("/", ".")
            OmegaConf.update(result, within, OmegaConf.select(config, within), merge=False, force_add=True)
        elif arguments.group(key):  # the whole option, its interpolations meeting the run's own values
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
