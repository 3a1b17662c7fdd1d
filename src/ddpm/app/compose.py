"""From a command line to the configuration of each of its jobs, as plain containers, checked.

Hydra composes, by its public interface; our check then tells the first mistake in one message. Neither needs
torch, and nothing is built or written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from ddpm.app import check, outside, run_directory
from ddpm.app.arguments import Arguments
from ddpm.app.grammar import absolute, quoted, shown
from ddpm.app.groups import WHOLE
from ddpm.app.hydra_errors import first_lines, no_such_option, told_in_one_message
from ddpm.app.left_out import leave_out
from ddpm.app.run_configuration import continued, own_file, own_of_file, primary, read_own, run_directory_of
from ddpm.data.paths import is_url
from ddpm.errors import UsageError


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


def composed(arguments: Arguments, program: str, overrides: Sequence[str] | None = None) -> Composed:
    """The configuration of one job.

    Args:
        arguments: the command line.
        program: whose configuration: train, sample, evaluate, inspect or encode.
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
        if own is not None:
            from_where = origin or absolute(str(values["ckpt"]))
            outside.check_configuration(from_where, values, run_directory_of(from_where), typed)
    data = values.get("data") or {}
    for node in (data, data.get("condition")):  # to be repeated from anywhere
        if isinstance(node, dict) and isinstance(node.get("path"), str) and not is_url(node["path"]):
            node["path"] = str(absolute(node["path"]))
    return Composed(values, config, origin)


def _from_hydra(arguments: Arguments, program: str, overrides: list[str]) -> DictConfig:
    run_directory.register_resolver()
    with primary(arguments, program) as (directories, name):
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
                said = first_lines(error)
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
            raise UsageError(no_such_option("recipe", chosen, recipes))
    if data is None or recipe is not None or not recipes:
        return list(overrides)
    without = set(arguments.options("data")) - set(recipes)
    return [*overrides, "recipe=pictures"] if without.issuperset(data.split(",")) else list(overrides)


def _typed(overrides: Sequence[str]) -> list[str]:
    """The keys and groups that a person set."""
    return [text.partition("=")[0].lstrip("+~") for text in overrides]


def _without_hydra(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def claimed(config: DictConfig, directory: Path) -> DictConfig:
    """Hydra's configuration with the directory that the run really has."""
    with read_write(config), open_dict(config):
        config.hydra.run.dir = config.hydra.runtime.output_dir = str(directory)
    return config
