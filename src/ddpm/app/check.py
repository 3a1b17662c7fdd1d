"""The check of a configuration before anything is built, imported or written."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from ddpm import targets
from ddpm.app.schema import RANGES, DataSwitches, ModelSwitches, RootSettings, TrainerSettings
from ddpm.errors import UsageError

PROVIDED = {
    "data": ("seed",),
    "model": ("in_channels", "out_channels", "num_classes"),
    "optimizer": ("parameters",),
    "logger": ("directory", "id", "config"),
}
"""Arguments that the program gives to what a group builds, so that nobody types them."""

SWITCHES = {
    "data": tuple(field.name for field in fields(DataSwitches)),
    "model": tuple(field.name for field in fields(ModelSwitches)),
}
"""Keys of a group that are for the program, not for what the group builds."""

OPTIONAL = ("logger", "callbacks")
"""Groups that can be left out: logger=null."""

INSTANTIATE_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")


def plain(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved.

    Raises:
        UsageError: where a value is missing or an interpolation leads nowhere.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UsageError(f"{missing[0]} is missing: give it as {missing[0]}=VALUE")
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error).splitlines()[0]}") from error


def check_keys(config: Mapping[str, Any], reference: Mapping[str, Any], allowed: Sequence[str] = ()) -> None:
    """Refuse keys that nothing would read, targets that nothing may build, and wrong types under `trainer`.

    Nothing outside this project is imported, so it takes no time.

    Args:
        config: as plain containers.
        reference: the configuration as it is without anyone's changes; says which keys there are.
        allowed: packages whose targets are admitted beside our own and the libraries'.

    Raises:
        UsageError: for the first mistake, naming the key and the nearest valid one.
    """
    _check_node("", config, reference, allowed)
    check_values("", config, RootSettings)
    check_values("data.", config.get("data") or {}, DataSwitches)  # evaluating may leave it null
    check_values("model.", config.get("model", {}), ModelSwitches)
    trainer = config.get("trainer", {})
    known = [field.name for field in fields(TrainerSettings)]
    for name in trainer:
        if name != "_target_" and name not in known:
            raise UsageError(unknown(f"trainer.{name}", known))
    check_values("trainer.", trainer, TrainerSettings)


def check_foreign_targets(config: Mapping[str, Any]) -> None:
    """The same for keys of constructors outside this project, which have to be imported to be asked.

    Raises:
        UsageError: for the first key that a constructor does not know.
    """
    for key, node in _targets("", config):
        if not targets.is_ours(node["_target_"]):
            _check_arguments(key, node)


def check_values(prefix: str, settings: Mapping[str, Any], schema: type) -> None:
    """Refuse wrong types and values out of range among single settings.

    Args:
        prefix: of their keys, with a dot where it has one.
        settings: by name.
        schema: a dataclass that gives each name its type; names that it does not have are left alone.

    Raises:
        UsageError: for the first mistake.
    """
    types = {field.name: field.type for field in fields(schema)}
    for name, value in settings.items():
        if name not in types:
            continue
        key = f"{prefix}{name}"
        kind = getattr(types[name], "__name__", str(types[name])).replace(" | None", " or null")
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {name: value})
        except ValidationError as error:
            raise UsageError(f"{key}={value}: must be {kind}") from error
        if kind.startswith(("int", "float")) and isinstance(value, bool | str):
            raise UsageError(f"{key}={value}: must be {kind}")
        if problem := RANGES.get(key, lambda _: None)(value):
            raise UsageError(f"{key}={value}: {problem}")


def unknown(key: str, valid: Iterable[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    parent, _, name = key.rpartition(".")
    valid = sorted(valid)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    prefix = f"{parent}." if parent else ""
    hint = f"did you mean {prefix}{near[0]}?" if near else f"valid here: {', '.join(valid) or 'nothing'}"
    return f"{key}: there is no such key; {hint}"


def _check_node(path: str, node: Any, reference: Any, allowed: Sequence[str]) -> None:
    if isinstance(node, list):
        for index, child in enumerate(node):
            _check_node(f"{path}[{index}]", child, None, allowed)
    if not isinstance(node, Mapping):
        return
    reference = reference if isinstance(reference, Mapping) else {}
    if "_target_" in node:
        targets.check_name(path, node["_target_"], allowed)
        if path != "trainer" and targets.is_ours(node["_target_"]):
            _check_arguments(path, node)
    elif reference and "_target_" not in reference:
        for name, child in node.items():
            new_object = isinstance(child, Mapping) and "_target_" in child and path
            if name not in reference and not new_object:
                raise UsageError(unknown(_join(path, name), reference))
    for name, child in node.items():
        _check_node(_join(path, name), child, reference.get(name), allowed)


def _check_arguments(path: str, node: Mapping[str, Any]) -> None:
    takes = targets.parameters(path, node["_target_"])
    provided, switches = PROVIDED.get(path, ()), SWITCHES.get(path, ())
    given = [name for name in node if name not in (*INSTANTIATE_KEYS, *switches)]
    for name in given:
        if name in provided:
            raise UsageError(
                f"{path}.{name}: is not yours to set, it follows from the rest of the configuration"
            )
        if name not in takes.names and not takes.any:
            raise UsageError(unknown(_join(path, name), {*takes.names, *switches} - set(provided)))
    lacking = takes.required - set(given) - set(provided)
    if lacking and not node.get("_partial_"):
        name = min(lacking)
        raise UsageError(f"{path}.{name} is missing: give it as {path}.{name}=VALUE")


def _targets(path: str, node: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(node, Mapping):
        if "_target_" in node and path != "trainer":
            yield path, node
        for name, child in node.items():
            yield from _targets(_join(path, name), child)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _targets(f"{path}[{index}]", child)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else str(name)
