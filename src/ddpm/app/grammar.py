"""Values as a person types them, in Hydra's override grammar and back.

Hydra's grammar takes plain words only: a blank, a bracket or a letter outside ASCII has to be quoted twice,
once for the shell and once for Hydra. Here a value is taken as typed.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from ddpm.errors import UsageError

PATHS = (
    "data.path", "data.condition.path", "data.vae", "vae", "ckpt", "guidance.ckpt", "samples", "init", "out",
    "start", "end", "mask", "condition", "condition_mask",
    "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Keys whose value is a path, whatever it looks like."""


PATH = re.compile(r"""\s*(?:"([^"]*)"\s*|'([^']*)'\s*|([^,]*)),""")
"""One of a list: in quotes, or up to the next comma."""


def as_typed(key: str, value: str, *, sweeps: bool = False, listed: bool = False) -> str:
    """A value that Hydra's grammar reads as it was typed.

    Args:
        key: whose value it is.
        value: as typed; a leading `~` is the home directory, which a shell leaves alone behind `KEY=`.
        sweeps: whether commas part the values of a sweep.
        listed: whether the key takes a list of paths too, [A,B]; one path in brackets is what it is where
            there is such a file.

    Raises:
        UsageError: for a list of paths of which one is empty.
    """
    if listed and "${" not in value and is_listed(value) and not (sweeps and _is_sweep(key, value)):
        return f"[{','.join(quoted(path) for path in _paths(key, value))}]"
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
        joined = f"[{','.join(as_typed(key, element) for element in elements)}]"
        if parse(f"{key}={joined}") is not None:
            return joined
    return quoted(value)


def is_listed(value: str) -> bool:
    """Whether a path is in brackets, as a list of paths is, and nothing is there that is called so."""
    return value.startswith("[") and value.endswith("]") and not os.path.lexists(value)


def _is_sweep(key: str, value: str) -> bool:
    override = parse(f"{key}={value}")
    return override is not None and override.is_sweep_override()


def _paths(key: str, value: str) -> list[str]:
    """The paths of [A,B]: as typed up to the next comma, or in quotes."""
    found = []
    for double, single, plain in PATH.findall(value[1:-1] + ","):
        path = double or single or plain.strip()
        if not path:
            raise UsageError(f"{key}={value}: one path is empty; write [A,B]")
        found.append(os.path.expanduser(path) if path == "~" or path.startswith("~/") else path)
    return found


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


def without_hydra(overrides: Sequence[str]) -> tuple[str, ...]:
    """Overrides without those of Hydra's own settings."""
    return tuple(text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/")))
