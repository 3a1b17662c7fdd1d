"""The words of a command line, read as a person means them.

Whether a key exists is told later, by our own check, which knows the nearest one; so every key is let in,
with or without a `+` before it.
"""

import difflib
import os
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from hydra._internal.utils import get_args_parser  # there is no public parser of Hydra's own flags
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    OverrideType,
)

import ddpm
from ddpm import options
from ddpm.app import wide
from ddpm.app.grammar import PATHS, absolute, as_typed, parse, shown
from ddpm.app.groups import WHOLE, WITHIN
from ddpm.app.schema import PROGRAMS
from ddpm.errors import UsageError
from ddpm.options import CONF

FLAGS = ("--config-dir", "--config-name", "--help", "--info", "--multirun")
"""Hydra's flags that a person may have meant by another word."""


@dataclass(frozen=True)
class Arguments:
    """A command line.

    Attributes:
        flags: what begins with a dash, for Hydra.
        overrides: the rest, in Hydra's grammar.
        typed: the rest, as typed.
        multirun: whether -m was given.
        informs: whether only something is to be shown: --help, --cfg, --info, shell completion.
        job_shown: whether that is the job's configuration: --cfg job.
        package: of --package, the part of it.
        config_dir: of --config-dir, absolute.
        config_name: of --config-name.
        is_run: whether config_dir is a run directory, whose files are no options.
    """

    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    typed: tuple[str, ...]
    multirun: bool
    informs: bool
    job_shown: bool
    package: str | None
    config_dir: Path | None
    config_name: str | None
    is_run: bool = False

    @property
    def parsed(self) -> list[Override]:
        """The overrides as Hydra reads them."""
        parser = OverridesParser.create()
        return [parser.parse_override(text) for text in self.overrides]

    def value(self, key: str) -> object:
        """What was typed for a key, the last time; None where it was not."""
        values = [override.value() for override in self.parsed if override.key_or_group == key]
        return values[-1] if values else None

    def group(self, key: str) -> bool:
        """Whether a key is a group of options, ours or one of --config-dir."""
        return any((directory / key).is_dir() for directory in self.directories)

    def options(self, group: str) -> list[str]:
        """The names of a group's options."""
        return options.options(group, *self.directories[1:])

    @property
    def directories(self) -> list[Path]:
        """Where options are looked for, the first first, in Hydra's order."""
        return [CONF] if self.config_dir is None or self.is_run else [CONF, self.config_dir]

    @property
    def allowed(self) -> list[str]:
        """The packages that the command line, and no yaml, admits for a `_target_`."""
        value = self.value("allow_targets")
        packages = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        names = [str(package) for package in packages]
        if (value is not None and not isinstance(value, str | list)) or not all(map(_is_package, names)):
            raise UsageError(f"allow_targets={value}: must be a list of packages, [PACKAGE,...]")
        return names

    def jobs(self) -> list[tuple[str, ...]]:
        """The overrides of each job of a sweep, in the order in which Hydra's own sweeper runs them."""
        choices = [
            self.choices(override) if override.is_sweep_override() else [text]
            for text, override in zip(self.overrides, self.parsed, strict=True)
        ]
        return list(product(*choices))

    def choices(self, override: Override) -> list[str]:
        """The overrides that a sweep over one key or group runs through.

        Raises:
            UsageError: where they cannot be counted, or are none.
        """
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            options = self.options(override.key_or_group)
            if not (found := value.filter(options)):
                raise UsageError(
                    f"{shown([override.input_line or ''])}: no option is called so; there are "
                    f"{', '.join(options) or 'none'}"
                )
            return [f"{key}={name}" for name in found]
        if isinstance(value, IntervalSweep):
            raise UsageError(
                f"{shown([override.input_line or ''])}: an interval is for a search, hparams_search=optuna; "
                "values to run through are written 1,2,3"
            )
        if not (found := [f"{key}={text}" for text in override.sweep_string_iterator()]):
            raise UsageError(
                f"{shown([override.input_line or ''])}: holds no value, and a sweep of no jobs is none"
            )
        return found

    @property
    def first_of_each(self) -> tuple[str, ...]:
        """The overrides with the first value of each sweep."""
        found = []
        for text, override in zip(self.overrides, self.parsed, strict=True):
            if not override.is_sweep_override():
                found.append(text)
            elif isinstance(interval := override.value(), IntervalSweep):
                found.append(f"{override.get_key_element()}={interval.start}")
            else:
                found += self.choices(override)[:1]
        return tuple(found)


def read(words: Sequence[str], program: str = "train", config_dir: Path | None = None) -> Arguments:
    """Read the words behind the program's name.

    Args:
        words: as the shell hands them over.
        program: whose configuration they are about; says which groups may be empty.
        config_dir: where options are looked for beside `conf/`, if the words do not say it.

    Raises:
        UsageError: for a word that nothing can be made of.
    """
    parser = get_args_parser()
    for action in parser._actions:
        if "--version" in action.option_strings:
            vars(action)["version"] = f"ddpm {ddpm.__version__}"
    known = {option for action in parser._actions for option in action.option_strings}
    for word in words:
        if word.startswith("-") and word.split("=")[0] not in known:
            raise UsageError(_without_dashes(word))
    parser.exit_on_error = False
    try:
        given = parser.parse_intermixed_args(list(words))
    except ArgumentError as error:
        raise UsageError(f"{error.argument_name or ''} {error.message}; see --help".strip()) from error
    flags = {
        "--config-dir": given.config_dir,
        "--config-name": given.config_name,
        "--config-path": given.config_path,
    }
    flags |= {"--cfg": given.cfg, "--package": given.package, "--info": given.info}
    switches = {"--help": given.help, "--hydra-help": given.hydra_help, "--resolve": given.resolve}
    switches |= {
        "--shell-completion": given.shell_completion,
        "--run": given.run,
        "--multirun": given.multirun,
    }
    if given.config_path is not None:
        raise UsageError(f"--config-path {given.config_path}: options of your own go into --config-dir DIR")
    if given.experimental_rerun is not None:
        raise UsageError("--experimental-rerun: a run is repeated by its config.yaml, see docs/guide.md")
    directory = config_dir
    if given.config_dir is not None:
        directory = absolute(given.config_dir)
        if not directory.is_dir():
            raise UsageError(f"--config-dir {given.config_dir}: there is no such directory")
        flags["--config-dir"] = str(directory)
    arguments = Arguments(
        flags=(
            *(name for name, on in switches.items() if on),
            *(f"{name}={value}" for name, value in flags.items() if value is not None),
        ),
        overrides=(),
        typed=tuple(given.overrides),
        multirun=given.multirun,
        informs=bool(given.help or given.hydra_help or given.cfg or given.info or given.shell_completion),
        job_shown=given.cfg == "job",
        package=given.package,
        config_dir=directory,
        config_name=given.config_name,
        is_run=directory is not None and _is_run(directory),
    )
    admitted: list[str] = []
    if given.shell_completion:  # what follows is a word of Hydra's: install=bash
        return replace(arguments, overrides=tuple(given.overrides))
    for text in given.overrides:
        wide.check(text)
    for text in (_within(word, arguments, program) for word in given.overrides):
        group = key_of(text)
        if arguments.group(group):  # the last word about a group holds, null among them
            admitted = [other for other in admitted if key_of(other) != group]
        found = _admitted(text, arguments, program)
        admitted += [] if found is None else [found]
    return replace(arguments, overrides=tuple(admitted))


def _within(text: str, arguments: Arguments, program: str) -> str:
    """A word about a group that stands within another, as Hydra calls it: condition=downsampled and
    data.condition=downsampled are data/condition=downsampled.
    """
    key, equals, value = text.partition("=")
    bare = key.lstrip("+~")
    for short, group in WITHIN.items():
        named = {*arguments.options(group), "null"}
        is_key = bare == group.replace("/", ".") and bool(equals) and named.issuperset(value.split(","))
        if program in ("train", "inspect") and (is_key or bare == short):
            return text.replace(bare, group, 1)
    return text


def _is_run(directory: Path) -> bool:
    """Whether a run, or an import, left this directory."""
    return os.path.lexists(directory / "config.yaml") and any(
        os.path.lexists(directory / name) for name in ("run.json", "checkpoints")
    )


def key_of(text: str) -> str:
    """The key or group that an override is about."""
    return text.partition("=")[0].lstrip("+~")


def _without_dashes(word: str) -> str:
    name, equals, value = word.lstrip("-").partition("=")
    near = difflib.get_close_matches(f"--{name.replace('_', '-')}", FLAGS, n=1, cutoff=0.8)
    if near and word.partition("=")[0] not in FLAGS:
        return f"{word}: there is no such flag; did you mean {near[0]}?"
    name = name.replace("-", "_")
    if equals:
        return (
            f"{word}: keys are typed without dashes: {name}={value}. A W&B agent does so where its sweep "
            "says command: [${env}, ${interpreter}, ${program}, ${args_no_hyphens}]"
        )
    return f"{word}: there is no such flag; keys are typed without dashes, as {name}=VALUE; see --help"


def _admitted(text: str, arguments: Arguments, program: str) -> str | None:
    """An override in Hydra's grammar that sets its key whether a yaml lists it or not; None where nothing is
    left of it.
    """
    key, equals, value = text.partition("=")
    bare = key.lstrip("+")
    if not bare.lstrip("~") or (not equals and not text.startswith("~")):
        raise UsageError(f"{text}: must be KEY=VALUE or GROUP=OPTION")
    if bare in PATHS and not value:
        raise UsageError(f"{text}: names no path; give one, or leave the key out")
    listed = bare == "ckpt" and program == "evaluate"
    typed = as_typed(bare, value, sweeps=arguments.multirun, listed=listed) if equals else ""
    readable = f"{key}={typed}" if equals else text
    override = parse(readable)
    if override is None:
        raise UsageError(f"{text}: cannot be read as KEY=VALUE; quote what is not plain")
    if bare.startswith("hydra/") and equals and override.value() is None:
        raise UsageError(f"{text}: cannot be left out; choose one of {bare}=OPTION")
    if override.type == OverrideType.DEL and arguments.group(override.key_or_group):
        return _left_out(override.key_or_group, arguments, program)
    if (
        override.type == OverrideType.DEL
        or override.package is not None
        or bare.split("/")[0].split(".")[0] == "hydra"
    ):
        return readable
    if not arguments.group(bare):
        return f"++{bare}={readable.partition('=')[2]}"
    if (CONF / bare).is_dir():
        readable = readable.lstrip("+")  # ours are in the defaults list, where Hydra wants no `+`
    if override.is_sweep_override():
        return _swept_group(bare, readable, override, arguments)
    value_of = override.value()
    one = bare == "recipe" or (program in PROGRAMS and bare in PROGRAMS[program].objects)
    if isinstance(value_of, list) and one:
        raise UsageError(f"{text}: takes one option; several are a sweep, {bare}=A,B with -m")
    chosen = value_of if isinstance(value_of, list) else [value_of]
    if bare == "data" and _is_path(value_of, arguments.options(bare)):
        raise UsageError(
            f"{text}: names a path, and data takes an option; a folder of pictures or a zip file is "
            f"data=folder data.path={value}"
        )
    if value_of is None:
        return _left_out(bare, arguments, program)
    if not all(isinstance(option, str) for option in chosen):
        there = ", ".join(arguments.options(bare))
        hint = "; the number of steps is schedule.num_timesteps" if bare == "timesteps" else ""
        if any(isinstance(option, dict) for option in chosen):
            hint = f"; a class of another library is {bare}._target_=CLASS {bare}.KEY=VALUE"
        raise UsageError(f"{text}: there is no such option; there are {there}{hint}")
    return readable


def _is_path(option: object, options: Sequence[str]) -> bool:
    """Whether what is typed for an option is where something lies."""
    if not isinstance(option, str) or option in options:
        return False
    return option.startswith(("/", "~", ".")) or os.path.exists(option)


def _left_out(group: str, arguments: Arguments, program: str) -> str | None:
    """The override that leaves a group empty; None where it is without a word."""
    if "none" in arguments.options(group):
        return f"{group}=none"
    if group in WHOLE and group != "recipe":
        return None  # null already, unless an option is typed
    if program in PROGRAMS and group in PROGRAMS[program].optional:
        return f"~{group}"  # an experiment may have chosen one
    raise UsageError(f"{group}: cannot be left out; choose one of {group}=OPTION")


def _swept_group(group: str, readable: str, override: Override, arguments: Arguments) -> str:
    """A sweep over a group's options, null among them read as none."""
    value = override.value()
    if not isinstance(value, ChoiceSweep) or None not in value.list:
        return readable
    if "none" not in arguments.options(group):
        raise UsageError(
            f"{shown([readable])}: a sweep cannot leave {group} out; use an option that changes nothing"
        )
    names = ["none" if name is None else str(name) for name in value.list]
    return f"{group}={','.join(names)}"


def _is_package(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))
