"""Small files that may be anybody's: read within stated bounds, and nothing in them is built or run.

A pipe or a device in the place of a file does not block, and nothing is unpacked that would take more memory
or time than a file of a few thousand lines.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from ddpm.errors import UsageError

MOST_BYTES = 1 << 20
"""Of a file of settings."""

MOST_VALUES = 20_000
"""Keys and values of a yaml file, those that an alias (*) repeats counted again."""

MOST_DEEP = 40
"""Levels of mappings and lists within each other."""

MOST_DIGITS = 400
"""Of a number."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NUMBER = re.compile(r"[-+0-9a-fA-FxX_.:]+")


def contents(file: Path, most: int = MOST_BYTES) -> bytes:
    """What is in a file.

    Args:
        file: its path; a link is followed.
        most: bytes that it may have.

    Raises:
        UsageError: where there is none, it is a directory, a pipe or a device, or it is larger.
    """
    found = beginning(file, most + 1)
    if len(found) > most:
        raise UsageError(f"{file}: has more than {most:,} bytes, which no file of this kind needs")
    return found


def beginning(file: Path, size: int) -> bytes:
    """The first bytes of a file.

    Args:
        file: its path; a link is followed.
        size: how many, or all that there are.

    Raises:
        UsageError: where there is none, or it is a directory, a pipe or a device.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{file}: cannot be read ({said})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{file}: is no file, but a directory, a pipe or a device")
        found = b""
        while len(found) < size and (part := os.read(descriptor, size - len(found))):
            found += part
        return found
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from error
    finally:
        os.close(descriptor)


def text(file: Path, most: int = MOST_BYTES) -> str:
    """The same, of a text.

    Raises:
        UsageError: also where it is not UTF-8.
    """
    try:
        return contents(file, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file}: cannot be read, it is no text (byte {error.start} is not UTF-8)"
        ) from error


def yaml_values(file: Path) -> dict[str, Any]:
    """What a yaml file says, plain containers, by YAML's own rules; its tags build nothing.

    Raises:
        UsageError: where it is no yaml, holds no keys, or would take more than is stated here.
    """
    written = text(file)
    try:
        _check_size(file, written)
        found = yaml.load(written, LOADER)
    except yaml.MarkedYAMLError as error:  # whose own text quotes the file
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise UsageError(f"{file}: cannot be read, it is no yaml ({error.problem}{where})") from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file}: cannot be read, it is no yaml ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file}: is no configuration, it holds no keys")
    return {str(key): value for key, value in found.items()}


def json_values(file: Path, most: int = MOST_BYTES) -> dict[str, Any]:
    """What a json file says.

    Raises:
        UsageError: where it is no json, holds no keys, or is larger.
    """
    found = json_content(file, most)
    if not isinstance(found, dict):
        raise UsageError(f"{file}: cannot be read, it holds no keys")
    return found


def json_content(file: Path, most: int = MOST_BYTES) -> Any:
    """The same, whether it holds keys or not.

    Raises:
        UsageError: where it is no json, or is larger.
    """
    written = text(file, most)
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read, it is no json ({type(error).__name__})") from error


def _check_size(file: Path, written: str) -> None:
    """Refuse what would be much larger once it is read: deep nesting, aliases of aliases, endless numbers."""
    sizes: dict[str | None, int] = {}  # of what has a name, with all that is in it
    open_: list[tuple[str | None, int]] = []  # names of what is being read, and the count where they began
    count = 0
    for event in yaml.parse(written, LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            name, began = open_.pop()
            if name is not None:
                sizes[name] = count - began
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in {name for name, _ in open_}:
                raise UsageError(f"{file}: *{event.anchor} repeats what it stands in")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.ScalarEvent):
                _check_number(file, event)
                if event.anchor is not None:
                    sizes[event.anchor] = 1
            else:
                open_.append((event.anchor, count - 1))
        if len(open_) > MOST_DEEP:
            raise UsageError(f"{file}: has more than {MOST_DEEP} levels, which no configuration needs")
        if count > MOST_VALUES:
            raise UsageError(f"{file}: says more than {MOST_VALUES:,} values, which no configuration needs")


def _check_number(file: Path, event: yaml.ScalarEvent) -> None:
    if len(event.value) > MOST_DIGITS and event.implicit[0] and NUMBER.fullmatch(event.value):
        where = f"line {event.start_mark.line + 1}" if event.start_mark is not None else "one value"
        raise UsageError(f"{file}: {where} is a number of more than {MOST_DIGITS} digits")
