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

PATHS = (
    "data.path", "ckpt", "samples", "init", "out", "start", "end", "mask", "hydra.run.dir", "hydra.sweep.dir",
)  # fmt: skip
"""Keys whose value is a path, whatever it looks like."""


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


def without_hydra(overrides: Sequence[str]) -> tuple[str, ...]:
    """Overrides without those of Hydra's own settings."""
    return tuple(text for text in overrides if not text.lstrip("+~").startswith(("hydra.", "hydra/")))
