"""A search, `hparams_search=NAME`: its settings and its space, read and checked before its first job.

A search needs no product of values: Optuna chooses the next trial's by what came out of those before.
"""

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, QuotedString
from hydra.types import RunMode
from omegaconf import OmegaConf

from ddpm import targets
from ddpm.app import arguments as words
from ddpm.app import lock
from ddpm.app.arguments import Arguments
from ddpm.app.compose import Composed, composed
from ddpm.app.grammar import shown
from ddpm.app.left_run import left_in
from ddpm.app.sweeps.record import Job
from ddpm.app.sweeps.space import Parameter, described, parameter
from ddpm.errors import UsageError

KEY = "hydra.sweeper"

DIRECTIONS = ("minimize", "maximize")

MEASURED = ("val/loss", "train/loss", "train/gradient_norm")
"""What a run measures by itself that a validation can be compared by."""

LIBRARIES = ("ddpm.", "lightning.", "datetime.")
"""Whose callbacks log nothing else that could be compared."""

SEARCHED = re.compile(r"(tag|interval|range|choice|glob|shuffle|int|float)\s*\(")
"""How several values begin that are written as a function."""

TO_THE_END = 60.0
"""Seconds for jobs whose sweep has died: they are saving."""


@dataclass(frozen=True)
class Search:
    """The settings of a search.

    Attributes:
        space: what is searched.
        common: overrides that every trial has.
        n_trials: in all, those of earlier starts included.
        direction: minimize or maximize.
        monitor: the metric; its last value is what a trial comes to.
        seed: of what is drawn.
        sampler: arguments of Optuna's `TPESampler`.
        pruner: of its `PercentilePruner`; None where every trial runs to its end.
        max_steps: of each trial; None where that is searched or has no end.
    """

    space: tuple[Parameter, ...]
    common: tuple[str, ...]
    n_trials: int = 20
    direction: str = "minimize"
    monitor: str = "val/loss"
    seed: int = 0
    sampler: Mapping[str, Any] | None = None
    pruner: Mapping[str, Any] | None = None
    max_steps: int | None = None

    @property
    def kept(self) -> dict[str, Any]:
        """What sweep.json says of it."""
        return {
            "n_trials": self.n_trials,
            "direction": self.direction,
            "monitor": self.monitor,
            "max_steps": self.max_steps,
            "space": described(self.space),
        }

    @property
    def samples(self) -> list[tuple[str, ...]]:
        """Overrides of jobs that show whether every value can be had: each parameter's samples, one after the
        other, beside the first of the others.
        """
        firsts = {one.key: one.samples[0] for one in self.space}
        found = [tuple(firsts.values())]
        for one in self.space:
            found += [tuple({**firsts, one.key: word}.values()) for word in one.samples[1:]]
        return [(*self.common, *own) for own in found]


def is_search(first: Composed) -> bool:
    """Whether a command line is one."""
    return str(first.hydra.hydra.sweeper.get("_target_", "")).endswith(".SearchSweeper")


def check_mode(first: Composed) -> None:
    """Refuse a search without -m. A job of one says that it is a single run.

    Raises:
        UsageError: where it is.
    """
    if is_search(first) and first.hydra.hydra.mode not in (RunMode.RUN, RunMode.MULTIRUN):
        raise UsageError("hparams_search: is a search of many jobs, and needs -m")


def read(first: Composed, arguments: Arguments, program: str) -> Search:
    """The search that a command line asks for: what a yaml says under `hydra.sweeper.params`, overruled by
    what is typed, and what is typed with several values.

    Raises:
        UsageError: for the first mistake.
    """
    if find_spec("optuna") is None:
        raise UsageError(
            "hparams_search: is done by Optuna, which is not installed: pip install 'ddpm[sweep]'"
        )
    if not str(first.hydra.hydra.launcher.get("_target_")).endswith(".FreshProcessLauncher"):
        raise UsageError(
            "hydra/launcher: a search chooses each job when another has ended, which "
            "hydra/launcher=fresh_process alone tells it; leave hydra/launcher out"
        )
    if program != "train":
        raise UsageError("hydra/sweeper=search: searches by training; it is for train.py")
    settings: Any = OmegaConf.to_container(first.hydra.hydra.sweeper, resolve=True)
    steps = first.values["trainer"]["max_steps"]
    space = _space(settings["params"] or {}, arguments, program)
    is_searched = any(one.name == "trainer.max_steps" for one in space)
    search = Search(
        tuple(space),
        tuple(
            text
            for text, override in zip(arguments.overrides, arguments.parsed, strict=True)
            if not override.is_sweep_override()
        ),
        **{
            name: settings[name] for name in ("n_trials", "direction", "monitor", "seed", "sampler", "pruner")
        },
        max_steps=None if is_searched or steps < 0 else steps,
    )
    _check_settings(search)
    return search


def _space(params: Mapping[Any, Any], arguments: Arguments, program: str) -> list[Parameter]:
    typed = {override.key_or_group for override in arguments.parsed}
    given = [f"{key!s}={value}" for key, value in params.items() if str(key).lstrip("+~") not in typed]
    said = words.read(["-m", *given], program, arguments.config_dir).parsed
    for override in said:
        if not override.is_sweep_override():
            raise UsageError(
                f"{KEY}.params: {shown([override.input_line or ''])} is one value; what is searched is "
                "choice(A,B), interval(LOW,HIGH) or range(START,STOP,STEP)"
            )
    for override in arguments.parsed:
        if (value := _unread(override)) is not None:
            raise UsageError(
                f"{override.key_or_group}={value}: cannot be read; write choice(A,B), interval(LOW,HIGH), "
                "int(interval(LOW,HIGH)), range(START,STOP,STEP), or tag(log,...) around one of numbers"
            )
        if override.is_sweep_override():
            said.append(override)
    for override in said:
        if override.key_or_group.split("/")[0].split(".")[0] in ("hydra", "hparams_search", "ckpt"):
            raise UsageError(f"{override.key_or_group}: belongs to the search, and cannot be searched")
    space = {override.key_or_group: parameter(override, arguments) for override in said}
    if not space:
        raise UsageError(
            f"{KEY}.params: there is nothing to search; type some, as "
            "'optimizer.lr=tag(log,interval(1e-4,1e-2))' or model.dropout=0.0,0.1"
        )
    return list(space.values())


def _unread(override: Override) -> str | None:
    """What was meant as several values, and Hydra's grammar could only take as text; None for all else."""
    value = override.value()
    parts = value.list if isinstance(value, ChoiceSweep) and value.simple_form else [value]
    texts = [part.text if isinstance(part, QuotedString) else str(part) for part in parts]
    return ",".join(texts) if SEARCHED.match(texts[0]) else None


def _check_settings(search: Search) -> None:
    if search.n_trials < 1:
        raise UsageError(f"{KEY}.n_trials={search.n_trials}: must be at least 1")
    if search.direction not in DIRECTIONS:
        raise UsageError(f"{KEY}.direction={search.direction}: must be {' or '.join(DIRECTIONS)}")
    if not 0 <= search.seed < 2**32:
        raise UsageError(f"{KEY}.seed={search.seed}: must be at least 0 and below 2**32")
    for part, least in (("sampler", {}), ("pruner", {"n_min_trials": 1})):
        for name, value in (getattr(search, part) or {}).items():
            if value < least.get(name, 0):
                raise UsageError(f"{KEY}.{part}.{name}={value}: must be at least {least.get(name, 0)}")
    percentile = (search.pruner or {}).get("percentile", 50.0)
    if percentile > 100:
        raise UsageError(f"{KEY}.pruner.percentile={percentile}: must be at most 100")


def check_monitor(search: Search, configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a metric that no run would measure, as far as it can be known.

    Raises:
        UsageError: naming it.
    """
    monitor = search.monitor
    for config in configs:
        trainer = config["trainer"]
        if (
            monitor.startswith("val/")
            and trainer["limit_val_batches"] == 0
            and not trainer["overfit_batches"]
        ):
            raise UsageError(
                f"{KEY}.monitor={monitor}: nothing is validated where trainer.limit_val_batches=0; raise it"
            )
        callbacks = [node["_target_"] for node in config["callbacks"].values() if node]
        ours = all(str(target).startswith(LIBRARIES) for target in callbacks)
        if ours and targets.is_ours(config["model"]["_target_"]) and monitor not in MEASURED:
            raise UsageError(f"{KEY}.monitor={monitor}: no run measures it; there are {', '.join(MEASURED)}")


def check_same(
    directory: Path, left: Mapping[str, Any] | None, search: Mapping[str, Any] | None, key: str
) -> None:
    """Refuse to go on in a directory with another search, or with a sweep that is none.

    Args:
        directory: of the sweep.
        left: what its sweep.json says of its search.
        search: what the command says.
        key: where the user named the directory.

    Raises:
        UsageError: naming what differs.
    """
    if left is None and search is None:
        return
    if left is None or search is None:
        here, there = ("a search", "a sweep") if left is None else ("none", "a search")
        raise UsageError(
            f"{key}={directory}: holds {there}, and this command is {here}; choose another directory"
        )
    for name in ("space", "direction", "monitor", "max_steps"):
        if left.get(name) != search[name]:
            what = {"space": "what is searched", "max_steps": "trainer.max_steps"}.get(name, f"{KEY}.{name}")
            raise UsageError(
                f"{key}={directory}: holds another search, of which {what} is {_words(left.get(name))}, and "
                f"here {_words(search[name])}; choose another directory"
            )


def check_left(jobs: Iterable[Job], search: Search, arguments: Arguments, program: str, key: str) -> None:
    """Refuse to go on where the runs of earlier trials are others than this command's would be.

    Args:
        jobs: of the earlier start.
        search: that is to go on.
        arguments: the command line.
        program: whose it is.
        key: where the user named the directory of the sweep.

    Raises:
        UsageError: naming what differs.
    """
    for job in jobs:
        left = left_in(job.directory, key) if job.directory.is_dir() else None
        if left is None:
            continue
        searched = {one.key for one in search.space}
        own = [text for text in job.overrides if text.partition("=")[0] in searched]
        config = composed(arguments, program, [*search.common, *own]).values
        if config["resume"] == "never":
            raise UsageError(
                f"{key}={job.directory}: holds a run already, and resume=never; choose another directory, or "
                "leave resume=never out to go on with the search"
            )
        left.refuse_another(config, key)
        return  # all trials have the rest in common


def _words(value: Any) -> str:
    return (
        ", ".join(f"{key}: {text}" for key, text in value.items()) if isinstance(value, dict) else str(value)
    )


def wait_for_jobs(directories: Sequence[Path], seconds: float = TO_THE_END) -> None:
    """Wait for the jobs of a search whose own process has died: they save and end by themselves.

    Raises:
        UsageError: where one does not.
    """
    until = time.monotonic() + seconds
    while held := [directory for directory in directories if lock.is_held(directory)]:
        if time.monotonic() > until:
            raise UsageError(f"{held[0]}: a job of this search is still running there; wait for its end")
        time.sleep(0.2)
