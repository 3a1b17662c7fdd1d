"""From a command line to a checked configuration and a job: what Hydra does, with the mistakes told first.

Every mistake that the command line holds is told in one message, with exit code 2, before anything heavy is
imported and before any directory is made. `HYDRA_FULL_ERROR=1` shows the traceback instead.
"""

import difflib
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm.app import check, run_directory
from ddpm.app.run_directory import Place
from ddpm.errors import UsageError
from hydra_plugins.fresh_process_launcher import quoted

CONF = Path(__file__).parents[3] / "conf"

Job = Callable[[], int]
"""Does the work; returns the exit code."""

Prepare = Callable[[dict[str, Any], Place], Job]
"""(checked configuration, where to write) -> job. Raises UsageError for what only building can tell;
writes nothing.
"""


def run(prepare: Prepare, config_name: str) -> NoReturn:
    """Be a Hydra application.

    Args:
        prepare: builds the job.
        config_name: of the primary configuration in `conf/`.
    """
    try:
        sys.exit(_run(prepare, config_name))
    except UsageError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        if is_leader():
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def is_leader() -> bool:
    """Whether this process speaks and writes for all that do the same work."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")))
    return rank == "0"


def _run(prepare: Prepare, config_name: str) -> int:
    typed = tuple(sys.argv)
    arguments = get_args_parser().parse_args()
    informs = arguments.help or arguments.hydra_help or arguments.cfg or arguments.info
    if informs or arguments.shell_completion:
        run_directory.register_resolver()
        _hand_to_hydra(lambda _: None, config_name)
        return 0

    jobs, multirun = checked(config_name)
    if multirun and any(config.get("preflight") for config, _ in jobs):
        raise UsageError("preflight=true: looks at one run; leave -m out")
    if multirun:
        _hand_to_hydra(lambda _: None, config_name)
        return 0

    config, place = jobs[0]
    if config.get("preflight"):
        check.check_foreign_targets(config)
        return prepare(config, place)()
    named = any(re.match(r"\+*(hydra\.run\.dir|out)=", value) for value in arguments.overrides)
    absent = [path for path in (place.directory, *place.directory.parents) if not path.exists()]
    try:
        place = replace(place, directory=_claim(place.directory, config, named=named), command=typed)
        check.check_foreign_targets(config)
        job = prepare(config, place)
    except BaseException as error:
        for path in (place.directory, *absent):  # undo what was made, and nothing else
            if path in absent or not named:
                with suppress(OSError):
                    path.rmdir()
        if isinstance(error, OSError):
            raise UsageError(f"hydra.run.dir={place.directory}: {error}") from error
        raise
    sys.argv.append(f"hydra.run.dir={quoted(str(place.directory))}")
    exit_code = 1

    def task(_: DictConfig) -> None:
        nonlocal exit_code
        exit_code = job()

    _hand_to_hydra(task, config_name)
    return exit_code


def checked(config_name: str) -> tuple[list[tuple[dict[str, Any], Place]], bool]:
    """The configuration of every job of the command line, checked, with its place; and whether it is a sweep.

    Raises:
        UsageError: for the first mistake.
    """
    run_directory.register_resolver()
    arguments = get_args_parser().parse_args()
    try:
        configs, multirun, allowed = _compose(_config_loader(arguments, config_name), arguments, config_name)
        jobs = [_check(config, reference, allowed) for config, reference in configs]
    except MissingConfigException as error:
        raise UsageError(_missing_option(error)) from error
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UsageError):  # raised within a resolver
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        raise UsageError(_first_lines(error)) from error
    finally:
        GlobalHydra.instance().clear()
    if multirun and run_directory.number_of_processes() > 1:
        raise UsageError(
            "-m: a sweep is started by one process; leave torchrun or srun out, its jobs start theirs"
        )
    return jobs, multirun


def _hand_to_hydra(task: Callable[[DictConfig], None], config_name: str) -> None:
    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()


def _config_loader(arguments: Namespace, config_name: str) -> ConfigLoader:
    """Hydra's loader over conf/ and the command line's --config-dir, as Hydra itself sets it up."""
    search_path = create_config_search_path(str(CONF))
    if arguments.config_dir is not None:
        directory = Path(arguments.config_dir).absolute()
        if not directory.is_dir():
            raise UsageError(f"--config-dir {arguments.config_dir}: there is no such directory")
        search_path.prepend(
            "command-line", f"file://{directory}", SearchPathQuery(provider="schema", path=None)
        )
    GlobalHydra.instance().clear()
    return Hydra.create_main_hydra2(config_name, search_path).config_loader


def _compose(
    loader: ConfigLoader, arguments: Namespace, config_name: str
) -> tuple[list[tuple[DictConfig, DictConfig]], bool, list[str]]:
    """Every job's configuration, each with the one that says which keys there are; whether it is a sweep; and
    the packages that the command line, and no yaml, admits.
    """
    overrides = [_parse(_at_home(text), loader) for text in arguments.overrides]
    admitted = [_admit(override, loader) for override in overrides]
    for given, override in zip(arguments.overrides, admitted, strict=True):
        sys.argv[sys.argv.index(given, 1)] = override
    name = arguments.config_name or config_name

    def load(values: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
        return loader.load_configuration(name, list(values), mode, validate_sweep_overrides=False)

    reference = loader.load_configuration(config_name, [], RunMode.RUN)
    config = load(admitted)
    allowed = [
        package
        for override in overrides
        if override.key_or_group == "allow_targets"
        for package in OmegaConf.create({"value": override.value()}).value
    ]
    swept = [override.is_sweep_override() for override in overrides]
    if not (arguments.multirun or config.hydra.mode == RunMode.MULTIRUN):
        if any(swept):
            ambiguous = arguments.overrides[swept.index(True)]
            raise UsageError(
                f"{ambiguous}: several values are a sweep, which needs -m; a list is written [a,b]"
            )
        return [(config, reference)], False, allowed

    sweeper = load(admitted, RunMode.MULTIRUN).hydra.sweeper
    if sweeper._target_.endswith(".BasicSweeper"):
        values = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *admitted]
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(values)
        jobs = [job for batch in BasicSweeper.split_arguments(parsed, None) for job in batch]
    else:  # what another sweeper will choose is checked when it has chosen
        jobs = [[value for value, is_swept in zip(admitted, swept, strict=True) if not is_swept]]
    return [(load(job), reference) for job in jobs], True, allowed


def _at_home(text: str) -> str:
    """Spell out a leading `~`, which a shell leaves alone behind `KEY=` and Hydra cannot read."""
    key, equals, value = text.partition("=")
    return f"{key}={os.path.expanduser(value)}" if equals and value.startswith("~") else text


def _parse(text: str, loader: ConfigLoader) -> Override:
    try:
        return OverridesParser.create(config_loader=loader).parse_override(text)
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{text}: cannot be read as KEY=VALUE ({reason}); quote what is not plain"
        ) from error


def _admit(override: Override, loader: ConfigLoader) -> str:
    """Let a key be set whether its yaml lists it or not: whether it exists, our own check tells better.

    So `+trainer.devices=4`, `trainer.devices=4` and `++trainer.devices=4` all mean the same.
    """
    text = override.input_line or ""
    assert override.key_or_group is not None
    if override.type == OverrideType.DEL or override.package is not None or text.startswith("hydra"):
        return text
    bare = text.lstrip("+")
    if not loader.get_group_options(override.key_or_group):
        return f"++{bare}"
    return f"~{override.key_or_group}" if override.value() is None else bare


def _check(config: DictConfig, reference: DictConfig, allowed: Sequence[str]) -> tuple[dict[str, Any], Place]:
    """The plain configuration without Hydra's part, checked; and where the job writes."""
    own, reference = (OmegaConf.masked_copy(c, [k for k in c if k != "hydra"]) for c in (config, reference))
    values = check.plain(own)
    keys = OmegaConf.to_container(reference, resolve=False)
    assert isinstance(keys, dict)
    for absent in keys.keys() - values.keys():
        is_group = isinstance(keys[absent], dict)
        if is_group and absent not in check.OPTIONAL:
            raise UsageError(f"{absent}: cannot be left out; choose one of {absent}=OPTION")
        values[absent] = {} if is_group else keys[absent]
    check.check_keys(values, keys, allowed)
    values["allow_targets"] = list(allowed)
    data = values.get("data") or {}
    if isinstance(data.get("path"), str):  # so that the run can be repeated from anywhere
        data["path"] = str(Path(data["path"]).expanduser().absolute())
    in_sweep = not OmegaConf.is_missing(config.hydra.job, "num")
    sweep = Path(config.hydra.sweep.dir).name if in_sweep else None
    if not isinstance(config.hydra.run.dir, str):
        raise UsageError("hydra.run.dir: must be the path of a directory")
    return values, Place(Path(config.hydra.run.dir).absolute(), sweep)


def _claim(directory: Path, config: dict[str, Any], *, named: bool) -> Path:
    """Make the run directory for this run alone; or take the one that the user named, if it is unused.

    All processes of a job share one, which its leader sees to.
    """
    shared = run_directory.number_of_processes() > 1
    if "LOCAL_RANK" in os.environ and not (shared and is_leader()):
        return directory
    if not named and not shared:
        return run_directory.claim(directory)
    ckpt = Path(config.get("ckpt") or "/").expanduser().absolute()
    for left in ("run.json", "samples.npz"):
        if (directory / left).exists() and (left != "run.json" or directory not in (ckpt, *ckpt.parents)):
            hint = f", or continue that run with ckpt={directory}" if left == "run.json" else ""
            raise UsageError(
                f"{directory}: holds {left} of another run already; choose another directory{hint}"
            )
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    options = sorted(error.options or (path.stem for path in (CONF / group).glob("*.yaml")))  # none for lists
    if not group or not options:
        return _first_lines(error)
    near = difflib.get_close_matches(option, options, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{group}={option}: there is no such option; {hint}There are {', '.join(options)}"


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if error.__cause__ is not None:
        lines += str(error.__cause__).splitlines()[:1]
    return " ".join(lines[:2])
