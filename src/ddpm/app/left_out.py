"""Leaving out what a recipe or an experiment says to an option that somebody has replaced by another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ddpm import targets
from ddpm.app.groups import SWITCHES
from ddpm.app.schema import PROGRAMS
from ddpm.options import CONF


def leave_out(
    config: dict[str, Any],
    program: str,
    *,
    typed: Sequence[str],
    groups: Sequence[str],
    directories: Sequence[Path] = (CONF,),
) -> None:
    """Leave out what a recipe or an experiment says to an option that somebody has replaced by another.

    A recipe may set `callbacks.samples.n`; with `callbacks=none` there is nothing that it is about. What was
    typed itself stays, and is refused; so does what no option of the group has, a misspelt key.

    Args:
        config: of a program, as plain containers; it is changed.
        program: its name in `PROGRAMS`.
        typed: the keys of the command line.
        groups: of them, those for which an option was chosen.
        directories: where options are looked for.
    """
    known = PROGRAMS[program]

    def is_left(group: str, name: str) -> bool:
        key = f"{group}.{name}"
        by_hand = any(word == key or word.startswith(f"{key}.") for word in typed)
        return not by_hand and name in _keys_of_options(group, directories)

    for group in known.mappings:
        for name, child in list((config.get(group) or {}).items()):
            is_off = isinstance(child, Mapping) and child and "_target_" not in child
            if is_off and is_left(group, name):
                del config[group][name]
    for group in set(known.objects) & set(groups):
        node = config.get(group)
        if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
            continue
        if not targets.is_ours(node["_target_"]):
            continue
        takes = targets.parameters(group, node["_target_"])
        if takes.any:
            continue
        kept = {*takes.names, *targets.NODE_KEYS, *SWITCHES.get(group, ())}
        config[group] = {
            name: value for name, value in node.items() if name in kept or not is_left(group, name)
        }


def leave_out_foreign(config: dict[str, Any], typed: Sequence[str]) -> None:
    """The same where a person typed a `_target_` of another library in place of an option's: what the option
    said to its own constructor is left out. The constructor has to be imported to be asked.

    Args:
        config: of a program, as plain containers; it is changed.
        typed: the keys of the command line.
    """
    for group, node in config.items():
        if f"{group}._target_" not in typed or not isinstance(node, Mapping):
            continue
        takes = targets.parameters(group, node["_target_"])
        kept = {*takes.names, *targets.NODE_KEYS, *SWITCHES.get(group, ())}
        config[group] = {
            name: value
            for name, value in node.items()
            if takes.any or name in kept or f"{group}.{name}" in typed
        }


def _keys_of_options(group: str, directories: Sequence[Path]) -> set[str]:
    """Every key that some option of a group states, or its constructor takes where it is ours."""
    found: set[str] = set()
    for file in (file for directory in directories for file in (directory / group).glob("*.yaml")):
        node = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        found |= set(node)
        if isinstance(node.get("_target_"), str) and targets.is_ours(node["_target_"]):
            found |= set(targets.parameters(group, node["_target_"]).names)
    return found
