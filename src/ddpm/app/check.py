"""The check of a configuration before anything is built, imported or written."""

import difflib
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ddpm import options, targets
from ddpm.app.grammar import is_listed
from ddpm.app.groups import FIRST_PROVIDED, SWITCHES, WHOLE, provided
from ddpm.app.kinds import check_finite, fitted
from ddpm.app.measuring import run_or_samples
from ddpm.app.named_run import check_run
from ddpm.app.schema import INSTEAD, PROGRAMS, RANGES, DataSwitches, ModelSwitches, TrainerSettings
from ddpm.app.suggestions import unknown, unknown_at_top
from ddpm.data import kinds
from ddpm.data.paths import existing, existing_file, existing_folder, is_url
from ddpm.errors import UsageError
from ddpm.migration import MOVED
from ddpm.options import CONF

EXISTING = {
    "ddpm.data.sources.latents.Latents": existing,
    "ddpm.data.sources.arrays.Arrays": existing,
    "ddpm.data.sources.archive.Archive": existing_file,
    "ddpm.data.sources.folder.Folder": existing_folder,
    "ddpm.data.sources.hub.Hub": existing_folder,
}
"""What `data.path` has to be for sources that read this disk."""

READERS = {
    "ddpm.data.sources.archive.Archive": "archive",
    "ddpm.data.sources.arrays.Arrays": "arrays",
    "ddpm.data.sources.folder.Folder": "folder",
    "ddpm.data.sources.hub.Hub": "hub",
    "ddpm.data.sources.shard_stream.ShardStream": "stream",
}
"""The option, of those that `ddpm.data.kinds` knows, that a source reads `data.path` as."""

SHARDED = "ddpm.training.sharding.FullySharded"
"""The strategy of which every device holds a part of the network."""

NOT_SHARDED: dict[tuple[str, str], tuple[tuple[Any, ...], str]] = {
    ("trainer", "accelerator"): (("mps", "tpu"), "is for CPUs and CUDA's GPUs; use strategy=auto"),
    ("trainer", "precision"): (
        ("16-mixed", "16-true"),
        "has no scale for float16's gradients; use trainer.precision=bf16-mixed or 32-true",
    ),
    ("trainer", "sync_batchnorm"): (
        (True,),
        "has no batch normalisation over devices; leave it out, or use strategy=ddp",
    ),
    ("model", "compile"): ((True,), "does not compile; leave it out, or use strategy=ddp"),
    ("model", "cuda_graphs"): ((True,), "does not compile; leave it out, or use strategy=ddp"),
    ("model", "channels_last"): (
        (True,),
        "holds each parameter in runs of memory, which this layout is not; leave it out, or use strategy=ddp",
    ),
    ("optimizer", "_target_"): (
        ("torch.optim.Adafactor", "torch.optim.Rprop"),
        "cannot use it, as it needs whole parameters; use another, such as optimizer=adamw, or strategy=ddp",
    ),
    ("weighting", "_target_"): (
        ("ddpm.diffusion.weighting.Uncertainty",),
        "shards the network's parameters alone, and this has its own; use weighting=simple, or strategy=ddp",
    ),
}
"""Values that it cannot run with, and what to do."""


class MissingValueError(UsageError):
    """A value that has to be given was not."""


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved.

    Raises:
        MissingValueError: where a value has to be given.
        UsageError: where an interpolation leads nowhere.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise MissingValueError(f"{missing[0]} is missing: give it as {missing[0]}=VALUE")
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def check_keys(config: dict[str, Any], program: str, allowed: Sequence[str] = ()) -> None:
    """Refuse keys that nothing would read, targets that nothing may build, and values of a wrong type.

    Nothing outside this project is imported, so it takes no time. Groups that are left out become empty.

    Args:
        config: of a program, as plain containers.
        program: its name in `PROGRAMS`.
        allowed: packages whose targets are admitted beside our own and the libraries'.

    Raises:
        UsageError: for the first mistake, naming the key and the nearest valid one.
    """
    known = PROGRAMS[program]
    names = {field.name for field in fields(known.settings)}
    for key in config:
        if key in WHOLE:
            raise UsageError(
                f"{key}: has no keys of its own; a file of this group begins with the line "
                "# @package _global_, as UTF-8 without a byte order mark"
            )
        if key not in names and key not in (*known.objects, *known.mappings):
            raise UsageError(unknown_at_top(key, config, {*names, *known.objects, *known.mappings}))
    if lacking := sorted(names - config.keys() - {"allow_targets"}):  # which no yaml says
        raise UsageError(f"{lacking[0]}: cannot be left out; give it as {lacking[0]}=VALUE")
    for group in (*known.objects, *known.mappings):
        node = config.get(group)
        if group not in config and group not in known.optional:
            raise UsageError(
                f"{group}: cannot be left out; what chooses the others, such as a recipe, names it among its "
                f"defaults: - /{group}: OPTION"
            )
        if not node and group not in known.optional:
            raise UsageError(f"{group}: cannot be left out; choose one of {group}=OPTION")
        if node is not None and not isinstance(node, Mapping):
            raise UsageError(f"{group}={node}: must be one of {', '.join(_options(group))}")
        config[group] = dict(node or {})
    targets.check_names("", config, allowed)
    check_finite("", config)
    check_values("", config, known.settings)
    if known.trainer is not None:  # first, for others are interpolated from it
        _check_trainer(config["trainer"], known.trainer)
    for group in known.mappings:
        _check_mapping(group, config[group])
    for group in known.objects:
        if config[group].get("_partial_") and group not in FIRST_PROVIDED:
            raise UsageError(f"{group}._partial_: is for what waits for an argument; leave it out")
        if "_target_" in config[group]:
            _check_objects(group, config[group])
        elif group not in known.optional:
            raise UsageError(f"{group}: names no _target_; choose one of {', '.join(_options(group))}")
        elif config[group] and group not in known.completed:
            name = next(iter(config[group]))
            raise UsageError(
                f"{group}.{name}: what is chosen for {group} takes no keys; choose another of "
                f"{', '.join(_options(group))}"
            )
    if config.get("on_nonfinite") == "rollback" and not config["callbacks"].get("checkpoints"):
        raise UsageError(
            "on_nonfinite=rollback: goes back to a checkpoint, and callbacks.checkpoints, which writes them, "
            "is off; turn it on, or use on_nonfinite=stop or skip"
        )
    if isinstance(runs := config.get("ckpt"), list):
        _check_runs(config, runs)
    micro_batch = (config.get("data") or {}).get("micro_batch")
    accumulated = (config.get("trainer") or {}).get("accumulate_grad_batches", 1)
    if program == "train" and micro_batch is not None and accumulated > 1 and not config["ckpt"]:
        raise UsageError(
            f"data.micro_batch={micro_batch} and trainer.accumulate_grad_batches={accumulated}: the second "
            "follows from the first; give one, and leave the other at null or 1"
        )
    if config.get("strategy", {}).get("static_graph") and (accumulated > 1 or micro_batch is not None):
        raise UsageError(  # torch ends in an internal assertion
            f"{'data.micro_batch' if micro_batch is not None else 'trainer.accumulate_grad_batches'}: with "
            "strategy.static_graph=true the first backward pass has to be reduced, and accumulation leaves "
            "that out; use strategy=ddp, or take a batch whole"
        )
    is_sharded = config.get("strategy", {}).get("_target_") == SHARDED
    if config.get("checkpoint") == "sharded" and not is_sharded and not config["ckpt"]:
        # a run that goes on without shards has nothing to write in parts
        raise UsageError(
            "checkpoint=sharded: is for strategy=fsdp, under which each device holds a part of the network; "
            "use checkpoint=whole"
        )
    if config.get("checkpoint") == "sharded":
        for name, logger in (config.get("logger") or {}).items():
            if logger and logger.get("log_model"):
                raise UsageError(
                    f"logger.{name}.log_model={_shown(logger['log_model'])}: sends a checkpoint as one file; "
                    "use checkpoint=whole, or leave it out"
                )
    if is_sharded:
        for (group, name), (values, why) in NOT_SHARDED.items():
            node = config.get(group) or {}
            key = f"{group}.{name}" if name in node else name  # of a program that has no such group
            if (value := node.get(name, config.get(name))) in values:
                raise UsageError(f"{key}={_shown(value)}: strategy=fsdp {why}")
    _check_schedules_within(config.get("lr_schedule", {}))
    _check_condition(config, of_run="data" in known.completed)
    check_values("data.", config.get("data") or {}, DataSwitches)  # evaluating may leave it null
    check_values("model.", config.get("model", {}), ModelSwitches)


def _check_condition(config: Mapping[str, Any], *, of_run: bool) -> None:
    """Refuse what is no option of `data.condition`, and keys without an option.

    Args:
        config: of a program.
        of_run: whether a run says what is left out of its data: it keeps its kind of condition, of which keys
            may be typed.
    """
    condition = (config.get("data") or {}).get("condition")
    if condition is None or (isinstance(condition, Mapping) and "_target_" in condition):
        return
    if config.get("samples"):
        raise UsageError("data.condition: samples= are measured as they are, without one; leave it out")
    if of_run and isinstance(condition, Mapping):
        return
    if of_run:
        raise UsageError(
            f"data.condition={condition}: a run keeps the condition that it was trained under; only its keys "
            "can be typed, as data.condition.path=FOLDER"
        )
    there = ", ".join(f"condition={name}" for name in options.options("data/condition"))
    if isinstance(condition, Mapping):
        name = next(iter(condition), "")
        raise UsageError(f"data.condition.{name}: what is chosen takes no keys; choose one of {there}")
    raise UsageError(f"data.condition={condition}: there is no such option; there are {there}")


def _check_runs(config: dict[str, Any], runs: list[Any]) -> None:
    """Refuse a list of runs that no comparison is of; a list of one is that run.

    Raises:
        UsageError: for what is no path, and for a strategy that is for one network.
    """
    for run in runs:
        if not isinstance(run, str) or not run:
            raise UsageError(f"ckpt={_shown(runs)}: must be a run directory or checkpoint, or a list of them")
    if len(runs) < 2:
        config["ckpt"] = runs[0] if runs else None
    elif config["strategy"].get("_target_") == SHARDED:
        raise UsageError(
            f"strategy=fsdp: parts the network of one run, and ckpt names {len(runs)}; leave it out, or "
            "measure the runs one by one"
        )


def check_paths(config: Mapping[str, Any]) -> None:
    """Refuse runs, checkpoints, folders and files of images that are not there, or that the data option does
    not read, before seconds go into importing what would read them.

    Raises:
        UsageError: naming the key and the path.
    """
    if config.get("ckpt") and config.get("init"):
        raise UsageError(
            "ckpt and init: give one; ckpt continues a run, init starts a new one from its weights"
        )
    if "samples" in config:
        run_or_samples.check(config)
    if config.get("sigma_rel") is not None and config["weights"] == "raw":
        raise UsageError(
            f"weights and sigma_rel: raw weights are not averaged; leave out weights=raw, or "
            f"sigma_rel={config['sigma_rel']}"
        )
    for key, run in _named_runs(config):
        if key == "ckpt" and "samples" not in config and is_listed(run) and "," in run:
            raise UsageError(
                f"ckpt={run}: names several runs, which evaluate.py compares; name one of them here"
            )
        continues = key == "ckpt" and "init" in config
        check_run(run, key, f"python train.py -m {key}={{sweep}} goes on with the sweep" if continues else "")
    data = config.get("data") or {}
    path, target = data.get("path"), str(data.get("_target_"))
    if not isinstance(path, str) or is_url(path):
        return
    if target in READERS and os.path.exists(path) and (message := kinds.refused(READERS[target], path)):
        raise UsageError(message)
    if target in EXISTING:
        try:
            EXISTING[target](path)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _named_runs(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and path of each run that a configuration names."""
    for key in ("ckpt", "init"):
        paths = config.get(key)
        for path in paths if isinstance(paths, list) else [paths]:
            if path is not None:
                yield key, path
    guide = (config.get("guidance") or {}).get("ckpt")
    if isinstance(guide, str) and guide:
        yield "guidance.ckpt", guide


def _check_schedules_within(node: Mapping[str, Any]) -> None:
    """Refuse learning-rate schedules of torch that are made of others, each of which needs the optimizer."""
    for name, child in node.items():
        within = child if isinstance(child, list) else [child]
        made = [one["_target_"] for one in within if isinstance(one, Mapping) and "_target_" in one]
        if any(str(target).startswith("torch.optim.lr_scheduler.") for target in made):
            raise UsageError(
                f"lr_schedule.{name}: schedules within a schedule need its optimizer, which a configuration "
                "cannot give; write a function of the optimizer in a package of your own, and admit it with "
                "allow_targets=[PACKAGE]"
            )


def check_group(group: str, node: Mapping[str, Any], allowed: Sequence[str] = ()) -> None:
    """The same for what one group builds.

    Raises:
        UsageError: for the first mistake.
    """
    targets.check_names(group, node, allowed)
    check_finite(group, node)
    _check_objects(group, node)


def check_foreign_targets(config: Mapping[str, Any]) -> None:
    """The same for keys of constructors outside this project, which have to be imported to be asked.

    Raises:
        UsageError: for the first key that a constructor does not know.
    """
    for key, node in _targets("", config):
        if not targets.is_ours(node["_target_"]):
            _check_arguments(key, node)


def check_values(prefix: str, settings: MutableMapping[str, Any], schema: type) -> None:
    """Refuse wrong types and values out of range among single settings, and make whole numbers of `1e5`.

    Args:
        prefix: of their keys, with a dot where it has one.
        settings: by name.
        schema: a dataclass that gives each name its type; names that it does not have are left alone.

    Raises:
        UsageError: for the first mistake.
    """
    types = {field.name: targets.written(field.type) for field in fields(schema)}
    for name, value in settings.items():
        if name in types:
            settings[name] = _checked_value(f"{prefix}{name}", types[name], value)


def _checked_value(key: str, annotation: str, value: Any) -> Any:
    value = fitted(key, annotation, value)
    if problem := RANGES.get(key, lambda _: None)(value):
        raise UsageError(f"{key}={value}: {problem}")
    return value


def _options(group: str) -> list[str]:
    return [f"{group}={file.stem}" for file in sorted((CONF / group).glob("*.yaml"))]


def _check_trainer(settings: MutableMapping[str, Any], schema: type) -> None:
    known = [field.name for field in fields(schema)]
    for name in settings:
        if name in INSTEAD and schema is TrainerSettings:
            raise UsageError(f"trainer.{name}: {INSTEAD[name]}")
        if name != "_target_" and name not in known:
            raise UsageError(unknown(f"trainer.{name}", known))
    if lacking := [name for name in known if name not in settings]:
        raise UsageError(f"trainer.{lacking[0]}: cannot be left out; give it as trainer.{lacking[0]}=VALUE")
    check_values("trainer.", settings, schema)
    least, most = settings.get("min_steps"), settings.get("max_steps", -1)
    if least is not None and 0 <= most < least:
        raise UsageError(f"trainer.min_steps={least}: must be at most trainer.max_steps={most}")


def _check_mapping(group: str, node: Mapping[str, Any]) -> None:
    """Each entry is an object, or null where one is off."""
    for name, child in node.items():
        key = f"{group}.{name}"
        if key in MOVED:
            raise UsageError(f"{key}: is now {MOVED[key]}")
        if child is None or (isinstance(child, Mapping) and not child):
            _check_off(key, [other for other in node if node[other]])
            continue
        if isinstance(child, Mapping) and "_target_" in child:
            _check_objects(key, child)
            continue
        if not isinstance(child, Mapping):
            raise UsageError(
                f"{key}={child}: must be {key}._target_=CLASS, {{_target_: CLASS, KEY: VALUE}}, or null; "
                "within braces what is not plain needs quotes, filename: 'best-{step}'"
            )
        holding = {
            file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            for file in sorted((CONF / group).glob("*.yaml"))
        }
        # an option is the object itself, placed under its own name, or several under theirs
        holding = {
            option: {option} if "_target_" in entries else set(entries) - {"defaults"}
            for option, entries in holding.items()
        }
        if option := next((option for option, names in holding.items() if name in names), None):
            raise UsageError(
                f"{key}: is off; {group}={option} turns it on, {group}=[..., {option}] beside others"
            )
        there = {other for other, built in node.items() if isinstance(built, Mapping) and "_target_" in built}
        raise UsageError(unknown(key, there.union(*holding.values())))


def _check_off(key: str, others: Sequence[str]) -> None:
    """What is turned off need not be there, but a misspelt name would leave on what was meant.

    Args:
        key: that is null.
        others: names in its group that are on.
    """
    group, _, name = key.rpartition(".")
    if near := difflib.get_close_matches(name, others, n=1, cutoff=0.8):
        raise UsageError(f"{key}=null: there is no {name} to turn off; did you mean {group}.{near[0]}?")


def _check_objects(path: str, node: Any) -> None:
    """Keys of our own constructors, from a node down."""
    if isinstance(node, list):
        for index, child in enumerate(node):
            _check_objects(f"{path}[{index}]", child)
    if not isinstance(node, MutableMapping):
        return
    if "_target_" in node and targets.is_ours(node["_target_"]):
        _check_arguments(path, node)
    elif str(node.get("_target_")).startswith("torch."):
        for name in node:
            if f"{path}.{name}" in MOVED:  # at once, where the import would take seconds
                raise UsageError(unknown(f"{path}.{name}", ()))
    for name, child in node.items():
        _check_objects(f"{path}.{name}", child)


def _check_arguments(path: str, node: MutableMapping[str, Any]) -> None:
    takes = targets.parameters(path, node["_target_"])
    ours, switches = provided(path, takes.names), SWITCHES.get(path, ())
    given = [name for name in node if name not in (*targets.NODE_KEYS, *switches)]
    for name in given:
        key = f"{path}.{name}"
        if name in ours:
            raise UsageError(f"{key}: is not yours to set, it follows from the rest of the configuration")
        if name not in takes.names and not takes.any:
            raise UsageError(unknown(key, {*takes.names, *switches} - set(ours)))
        if name in takes.annotations:
            node[name] = _checked_value(key, takes.annotations[name], node[name])
    lacking = takes.required - set(given) - set(ours)
    if path.startswith("logger."):
        lacking = frozenset()  # most of what a logger needs is given by the program
    if path.startswith("callbacks."):
        lacking -= {"dirpath"}  # a place in the run directory
    if lacking and not node.get("_partial_") and not node.get("_args_"):
        name = min(lacking)
        raise UsageError(f"{path}.{name} is missing: give it as {path}.{name}=VALUE")


def _targets(path: str, node: Any) -> Iterator[tuple[str, MutableMapping[str, Any]]]:
    if isinstance(node, MutableMapping):
        if "_target_" in node and path != "trainer":
            yield path, node
        for name, child in node.items():
            yield from _targets(f"{path}.{name}" if path else str(name), child)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _targets(f"{path}[{index}]", child)


def _shown(value: Any) -> str:
    """As it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)
