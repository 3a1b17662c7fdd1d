"""The words of a command line, read as a person means them.

Hydra's grammar takes plain words only: a blank, a bracket or a letter outside ASCII has to be quoted twice,
once for the shell and once for Hydra. Here a value is taken as typed. Whether a key exists is told later, by
our own check, which knows the nearest one; so every key is let in, with or without a `+` before it.
"""

import difflib
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Sequence
from dataclasses import dataclass
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
    Quote,
    QuotedString,
)
from hydra.errors import HydraException

from ddpm.app.schema import PROGRAMS
from ddpm.errors import UsageError
from ddpm.options import CONF

PATHS = ("data.path", "ckpt", "init", "out", "start", "end", "mask", "hydra.run.dir", "hydra.sweep.dir")
"""Keys whose value is a path, whatever it looks like."""

WHOLE = ("experiment", "recipe", "debug", "sweep", "hparams_search")
"""Groups that build nothing: an option of theirs sets keys all over the configuration."""

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
        config_dir: of --config-dir, absolute.
        config_name: of --config-name.
    """

    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    typed: tuple[str, ...]
    multirun: bool
    informs: bool
    config_dir: Path | None
    config_name: str | None

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
        return any((place / key).is_dir() for place in self.places)

    def options(self, group: str) -> list[str]:
        """The names of a group's options."""
        return sorted({file.stem for place in self.places for file in (place / group).glob("*.yaml")})

    @property
    def places(self) -> list[Path]:
        """Where options are looked for, the first first, in Hydra's order."""
        return [CONF] if self.config_dir is None else [CONF, self.config_dir]

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
            self._choices(override) if override.is_sweep_override() else [text]
            for text, override in zip(self.overrides, self.parsed, strict=True)
        ]
        return list(product(*choices))

    def _choices(self, override: Override) -> list[str]:
        """The overrides that a sweep over one key or group runs through."""
        key, value = override.get_key_element(), override.value()
        if isinstance(value, Glob):
            return [f"{key}={name}" for name in value.filter(self.options(override.key_or_group))]
        if isinstance(value, IntervalSweep):
            raise UsageError(
                f"{shown([override.input_line or ''])}: an interval needs a sweeper that searches it, as "
                "hydra/sweeper=optuna does; values to run through are written 1,2,3"
            )
        return [f"{key}={text}" for text in override.sweep_string_iterator()]

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
                found += self._choices(override)[:1]
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
        config_dir=directory,
        config_name=given.config_name,
    )
    admitted = (_admitted(text, arguments, program) for text in given.overrides)
    return Arguments(**{**vars(arguments), "overrides": tuple(text for text in admitted if text is not None)})


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
    if not bare or (not equals and not text.startswith("~")):
        raise UsageError(f"{text}: must be KEY=VALUE or GROUP=OPTION")
    if bare in PATHS and not value:
        raise UsageError(f"{text}: names no path; give one, or leave the key out")
    readable = text if not equals else f"{key}={as_typed(bare, value, sweeps=arguments.multirun)}"
    override = parse(readable)
    if override is None:
        raise UsageError(f"{text}: cannot be read as KEY=VALUE; quote what is not plain")
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
    if override.is_sweep_override():
        return _swept_group(bare, readable, override, arguments)
    value_of = override.value()
    one = program in PROGRAMS and bare in PROGRAMS[program].objects
    if isinstance(value_of, list) and one:
        raise UsageError(f"{text}: takes one option; several are a sweep, {bare}=A,B with -m")
    chosen = value_of if isinstance(value_of, list) else [value_of]
    if value_of is None:
        return _left_out(bare, arguments, program)
    if not all(isinstance(option, str) for option in chosen):
        there = ", ".join(arguments.options(bare))
        hint = "; the number of steps is schedule.num_timesteps" if bare == "timesteps" else ""
        raise UsageError(f"{text}: there is no such option; there are {there}{hint}")
    return readable


def _left_out(group: str, arguments: Arguments, program: str) -> str | None:
    """The override that leaves a group empty; None where it is without a word."""
    if "none" in arguments.options(group):
        return f"{group}=none"
    if group in WHOLE or (program in PROGRAMS and group in PROGRAMS[program].optional):
        return None  # null already, unless an option is typed
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


def as_typed(key: str, value: str, *, sweeps: bool = False) -> str:
    """A value that Hydra's grammar reads as it was typed.

    Args:
        key: whose value it is.
        value: as typed; a leading `~` is the home directory, which a shell leaves alone behind `KEY=`.
        sweeps: whether commas part the values of a sweep.
    """
    if value == "~" or value.startswith("~/"):
        value = os.path.expanduser(value)
    if sweeps and "," in value and parse(f"{key}={value}") is None and value[0] not in "[{\"'":
        return ",".join(as_typed(key, part) for part in value.split(","))
    override = parse(f"{key}={value}")
    if key in PATHS:
        swept = override is not None and override.is_sweep_override() and sweeps
        null = override is not None and override.value() is None
        quoted_already = value[:1] in ("'", '"') and override is not None
        return value if swept or null or quoted_already or "${" in value else quoted(value)
    if override is not None:
        return value
    if value.startswith("[") and value.endswith("]"):
        elements = [element.strip() for element in value[1:-1].split(",")]
        listed = f"[{','.join(as_typed(key, element) for element in elements)}]"
        if parse(f"{key}={listed}") is not None:
            return listed
    return quoted(value)


def quoted(text: str) -> str:
    """The text as a quoted string of Hydra's override grammar."""
    return QuotedString(text, Quote.single).with_quotes()


def parse(text: str) -> Override | None:
    """An override as Hydra reads it; None where it cannot."""
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException:
        return None


def absolute(path: str) -> Path:
    """A path as a shell means it: `~` and the home of a user that there is, and all else as it is called."""
    return Path(os.path.expanduser(path)).absolute()


def shown(overrides: Sequence[str]) -> str:
    """Overrides as a person would type them, but for a shell's quotes."""
    return " ".join(map(_shown, overrides))


def _shown(text: str) -> str:
    override = parse(text)
    if override is None or not isinstance(override.value(), str) or override.is_delete():
        return re.sub(r"^\++", "", text)
    return f"{override.key_or_group}={override.value()}"


def config_flags(words: Sequence[str]) -> list[str]:
    """The flags of a command line that say which configuration is composed."""
    given, _ = get_args_parser().parse_known_args(list(words))
    flags = {
        "--config-path": given.config_path,
        "--config-name": given.config_name,
        "--config-dir": given.config_dir,
    }
    return [f"{flag}={value}" for flag, value in flags.items() if value is not None]


def program() -> list[str]:
    """How this program was started, up to its own arguments: the script, or `-m` and a module.

    A command of `ddpm` (`ddpm train`) belongs to it.
    """
    main = sys.modules["__main__"]
    command = sys.argv[1:2] if sys.argv[1:] and sys.argv[1] in COMMANDS and _is_ddpm(main) else []
    if main.__spec__ is not None:
        return ["-m", main.__spec__.name.removesuffix(".__main__"), *command]
    script = os.path.abspath(sys.argv[0])
    if command and not os.path.isfile(script):  # on Windows it is ddpm.exe, named here without the .exe
        return ["-m", "ddpm", *command]
    return [script, *command]


COMMANDS = ("train", "sample", "evaluate", "inspect")
"""The commands of `ddpm` whose arguments are Hydra's."""


def _is_ddpm(main: object) -> bool:
    spec = getattr(main, "__spec__", None)
    return spec.name == "ddpm.__main__" if spec is not None else Path(sys.argv[0]).stem == "ddpm"
