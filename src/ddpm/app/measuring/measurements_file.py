"""The file of all measurements, left where evaluate.py is through, and found by the same command again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm.app import terminal
from ddpm.app.measuring.measurements import MEASURED
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.run_record import without_nan
from ddpm.runtime.writing import readable_json, write_whole


def is_there(place: Place, request: Request, *, leader: bool) -> bool:
    """Whether an earlier start has left all that is asked for; the leader says so.

    Raises:
        UsageError: where it was asked for something else.
    """
    if place.request is None:
        return False
    place.request.refuse_another(place.directory, request.config, request.contents)
    if not (place.directory / MEASURED).exists():
        return False
    if leader:
        terminal.say(f"{place.directory}: holds these measurements already")
    return True


def write(directory: Path, found: Mapping[str, Any]) -> None:
    """Leave all of them in a directory.

    Raises:
        ddpm.runtime.writing.WriteError: where the disk refuses them.
    """
    write_whole(directory / MEASURED, readable_json(without_nan(dict(found))))
