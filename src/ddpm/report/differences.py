"""What differs between configurations: of a run from the defaults, and of runs from each other."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ddpm.report.entries import Entry

MOST_CHARACTERS = 500
"""Of a value that is shown."""

MOST_KEYS = 40
"""That set runs apart."""

NEVER = "allow_targets"
"""No run keeps it."""

OF_THE_PLACE = ("ckpt", "resume", "logger", "tags")
"""Keys that say where a run is from or where it is logged to, not what it is."""

LACKING = "\u2013"
"""What stands for the value of a run that has none."""


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key. A list is one value; a mapping without keys is one too."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{key}.{inner}": own for inner, own in flat(value).items()}
        else:
            found[str(key)] = value
    return found


def shown(value: Any) -> str:
    """A value as yaml would have it, on one line: null, true, 0.002, [1, 2], linear."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 3]}..."


def from_defaults(entry: Entry) -> dict[str, tuple[str, str]] | None:
    """Keys of a run that differ from the defaults: the run's value, and that of the defaults.

    Returns:
        None where the defaults are not known.
    """
    if entry.defaults is None or not entry.config:
        return None
    own, defaults = flat(entry.config), flat(entry.defaults)
    keys = [key for key in own if not (key in defaults and own[key] == defaults[key])]
    lost = [key for key in defaults if key not in own and not _is_within(key, own) and key != NEVER]
    return {
        key: (
            shown(own[key]) if key in own else LACKING,
            shown(defaults[key]) if key in defaults else LACKING,
        )
        for key in [*keys, *lost]
    }


def _is_within(key: str, keys: Mapping[str, Any]) -> bool:
    """Whether a mapping around a key is itself a value: empty, or null."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in keys for n in range(1, len(parts)))


def apart(entries: Sequence[Entry]) -> list[dict[str, str]]:
    """What sets each entry apart from the others, by key.

    Jobs of one sweep are told apart by what was typed. Others by the options that they chose, and by values
    of their configurations that no such choice brought along. An entry of which neither is known, as what was
    measured of a run that is elsewhere, sets no other apart.
    """
    if all(entry.typed is not None for entry in entries):
        keys = list(dict.fromkeys(key for entry in entries for key in entry.typed or ()))[:MOST_KEYS]
        return [
            {key: shown(entry.typed[key]) if key in (entry.typed or {}) else LACKING for key in keys}
            if entry.typed is not None
            else {}
            for entry in entries
        ]
    choices = [_choices(entry) for entry in entries]
    groups = [
        group
        for group in dict.fromkeys(group for own in choices for group in own)
        if group not in (*OF_THE_PLACE, "recipe", "experiment")
        and len({own.get(group) for own in choices if own}) > 1
    ]
    values = [flat(entry.config) for entry in entries]
    typed = {key for entry in entries for key in _typed_keys(entry)}
    keys = [
        key
        for key in dict.fromkeys(key for own in values for key in own)
        if key.partition(".")[0] not in OF_THE_PLACE
        and len({shown(own[key]) if key in own else None for own in values if own}) > 1
        and (key in typed or key.partition(".")[0] not in groups)
    ]
    return [
        {
            **{group: own_choices.get(group, LACKING) for group in groups},
            **{key: shown(own[key]) if key in own else LACKING for key in keys[:MOST_KEYS]},
        }
        for own_choices, own in zip(choices, values, strict=True)
    ]


def _choices(entry: Entry) -> dict[str, str]:
    """Options by group, as the record says."""
    found = entry.record.get("choices")
    return {str(k): shown(v) for k, v in found.items()} if isinstance(found, Mapping) else {}


def _typed_keys(entry: Entry) -> list[str]:
    found = entry.record.get("overrides")
    texts = found if isinstance(found, list) else []
    return [str(text).partition("=")[0].lstrip("+~") for text in texts]
