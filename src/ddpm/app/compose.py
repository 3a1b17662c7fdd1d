"""From a command line to the configuration of each of its jobs, as plain containers, checked.

Hydra composes, by its public interface; our check then tells the first mistake in one message. Neither needs
torch, and nothing is built or written.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from ddpm import migration, options
from ddpm.app import check, run_directory
from ddpm.app.arguments import Arguments
from ddpm.app.grammar import absolute, quoted, shown
from ddpm.app.groups import WHOLE
from ddpm.app.left_out import leave_out
from ddpm.errors import UsageError
from ddpm.options import CONF

OWN = "config.yaml"
"""The file of a run directory that holds its configuration."""


@dataclass(frozen=True)
class Composed:
    """A job's configuration.

    Attributes:
        values: of the program, plain containers, checked.
        hydra: the whole of what Hydra composed, with its own part.
        origin: the file of the run whose own configuration this is; None for one that is typed.
    """

    values: dict[str, Any]
    hydra: DictConfig
    origin: Path | None = None


@contextmanager
def told_in_one_message(directories: Sequence[Path] = (CONF,)) -> Iterator[None]:
    """Hydra's and OmegaConf's errors as `UsageError`, each a single line that names the way out."""
    try:
        yield
    except UsageError:
        raise
    except MissingConfigException as error:
        raise UsageError(_missing_option(error, directories)) from error
    except RecursionError as error:
        raise UsageError("an option leads back to itself, by its defaults list or an alias (*)") from error
    except yaml.MarkedYAMLError as error:
        mark, said = error.problem_mark or error.context_mark, error.problem or error.context
        where = "" if mark is None else f"{mark.name}, line {mark.line + 1}: "
        raise UsageError(f"{where}is no yaml: {said}") from error
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if group := re.match(r"Could not override '([^']+)'\. No match in the defaults list", str(error)):
            raise UsageError(f"{group[1]}: there is no such group here; see --help") from error
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UsageError):  # raised within a resolver
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise UsageError(_first_lines(error)) from error


def composed(arguments: Arguments, program: str, overrides: Sequence[str] | None = None) -> Composed:
    """The configuration of one job.

    Args:
        arguments: the command line.
        program: whose configuration: train, sample, evaluate or inspect.
        overrides: the job's own, of a sweep; by default those of the command line.

    Raises:
        UsageError: for the first mistake.
    """
    overrides = list(arguments.overrides if overrides is None else overrides)
    with told_in_one_message(arguments.directories):
        config = _from_hydra(arguments, program, overrides)
        origin = own_file(arguments, config, program)
        values = check.plain(_without_hydra(config))
        own = own_of_file(arguments, config, program) if origin is None else read_own(origin)
        if own is not None:
            values = continued(own, values, _without_hydra(config), arguments, overrides)
        values["allow_targets"] = arguments.allowed
        typed = _typed(overrides)
        groups = [key for key in typed if arguments.group(key)]
        leave_out(values, program, typed=typed, groups=groups, directories=arguments.directories)
        check.check_keys(values, program, arguments.allowed)
    data = values.get("data") or {}
    if isinstance(data.get("path"), str) and "://" not in data["path"]:  # to be repeated from anywhere
        data["path"] = str(absolute(data["path"]))
    return Composed(values, config, origin)


def _from_hydra(arguments: Arguments, program: str, overrides: list[str]) -> DictConfig:
    run_directory.register_resolver()
    name = arguments.config_name or program
    if run_configuration(arguments) is not None:
        name = program  # the file is read by `own_configuration`, and never by Hydra
    # Hydra finds a primary configuration in its first directory only
    directories = sorted(
        arguments.directories, key=lambda directory: not (directory / f"{name}.yaml").is_file()
    )
    main, *further = directories
    if further:
        listed = ",".join(quoted(f"file://{directory}") for directory in further)
        overrides = [f"hydra.searchpath=[{listed}]", *overrides]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(main), version_base="1.3", job_name=program):
        try:
            overrides = with_recipe(arguments, overrides)
            return _with_a_recipe(name, overrides, arguments)
        except UsageError:
            raise
        except (AttributeError, AssertionError, TypeError, ValueError) as error:  # Hydra's words
            said = _first_lines(error)
            raise UsageError(f"{shown(arguments.overrides)}: cannot be composed ({said})") from error


def _with_a_recipe(name: str, overrides: list[str], arguments: Arguments) -> DictConfig:
    """What Hydra composes; with the recipe for pictures where an experiment chooses a data option of one's
    own that brings none. Hydra then lacks the groups that a recipe adds, and may not know one that is
    swapped.
    """
    another = [*overrides, "recipe=pictures"]
    may_lack = "pictures" in arguments.options("recipe") and not any(
        text.startswith(("recipe=", "~recipe")) for text in overrides
    )
    try:
        config = compose(name, overrides, return_hydra_config=True)
    except ConfigCompositionException:
        if not may_lack or not any(override.key_or_group in WHOLE for override in arguments.parsed):
            raise
        config = compose(name, another, return_hydra_config=True)
        if config.hydra.runtime.choices.get("data") in arguments.options("recipe"):
            raise  # it was about something else
        return config
    chosen = config.hydra.runtime.choices.get("data")
    if may_lack and chosen is not None and chosen not in arguments.options("recipe"):
        return compose(name, another, return_hydra_config=True)
    return config


def with_recipe(arguments: Arguments, overrides: Sequence[str]) -> list[str]:
    """The overrides, with the recipe for pictures where a data option of one's own brings none, or where a
    sweep runs through such options alone.

    Hydra leaves out a recipe that there is not, since it is optional; it then knows no group to swap.

    Raises:
        UsageError: for a recipe that was typed and is not there.
    """
    data, recipe = (
        next((text.partition("=")[2] for text in reversed(overrides) if text.startswith(f"{group}=")), None)
        for group in ("data", "recipe")
    )
    recipes = arguments.options("recipe")
    for chosen in recipe.split(",") if recipe is not None else ():
        if chosen not in recipes:
            raise UsageError(_no_such_option("recipe", chosen, recipes))
    if data is None or recipe is not None or not recipes:
        return list(overrides)
    without = set(arguments.options("data")) - set(recipes)
    return [*overrides, "recipe=pictures"] if without.issuperset(data.split(",")) else list(overrides)


def _typed(overrides: Sequence[str]) -> list[str]:
    """The keys and groups that a person set."""
    return [text.partition("=")[0].lstrip("+~") for text in overrides]


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


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
        raise UsageError(f"{file}: cannot be read ({_first_lines(error)})") from error
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


def read_own(file: Path) -> dict[str, Any]:
    """The configuration in a run's `config.yaml`, plain values only: whatever it says to Hydra is left out.

    Raises:
        UsageError: where it is none.
    """
    try:
        values = options.read(file)
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read ({_first_lines(error)})") from error
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


def claimed(config: DictConfig, directory: Path) -> DictConfig:
    """Hydra's configuration with the directory that the run really has."""
    with read_write(config), open_dict(config):
        config.hydra.run.dir = config.hydra.runtime.output_dir = str(directory)
    return config


def _missing_option(error: MissingConfigException, directories: Sequence[Path]) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(
        error.options
        or {file.stem for directory in directories for file in (directory / group).glob("*.yaml")}
    )
    if not group and option:
        return (
            f"--config-name {option}: there is no {option}.yaml in {' or '.join(map(str, directories))}; a run's "
            "own configuration is repeated by --config-dir RUN_DIR --config-name config"
        )
    if not options:
        return _first_lines(error)
    own = "; options of your own need --config-dir DIR" if list(directories) == [CONF] else ""
    return _no_such_option(group, option, options) + own


def _no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(option, options, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? There" if near else "there"
    return f"{group}={option}: there is no such option; {hint} are {', '.join(options)}"


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None:
        lines += str(error.__cause__).splitlines()[:1]
    return " ".join(lines[:2]) or type(error).__name__
