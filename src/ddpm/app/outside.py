"""What a run directory, which may be a stranger's, would have written outside of it."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from ddpm.app.grammar import absolute, shown
from ddpm.errors import UsageError

WRITING = ("callbacks", "logger", "trainer", "strategy")
"""Groups of what writes."""

DIRECTORIES = ("default_root_dir", "dir", "dirpath", "log_dir", "root_dir", "save_dir")
"""What libraries call a directory that they write to, from where one stands unless it is absolute."""

TEXTS = ("description", "notes", "tags")
"""Keys of what is only shown."""

HELD = {"checkpoints": "*.ckpt", "samples": "*.png", "wandb": "*run*"}
"""What a run leaves in each of its folders."""


def check_configuration(file: Path, values: Mapping[str, Any], directory: Path, typed: Sequence[str]) -> None:
    """Refuse values by which something would be written elsewhere, unless they are typed.

    A folder of prepared data may stay where it is one already.

    Args:
        file: that holds the configuration, for the message.
        values: the run's own with what is typed beside it.
        directory: of the run.
        typed: keys and groups of the command line.

    Raises:
        UsageError: naming all of them, to be typed again.
    """
    found = dict(_leading_out(values, directory))
    found |= {key: value for key, value in _within("data", values.get("data")) if _is_no_cache(key, value)}
    again = [shlex.quote(f"{key}={value}") for key, value in found.items() if not _is_typed(key, typed)]
    if again:
        raise UsageError(
            f"{file}: would write outside of the run's directory: {', '.join(again)}; if that is meant, type "
            f"it again: {' '.join(again)}"
        )


def check_data(data: Mapping[str, Any], typed: Mapping[str, Any]) -> None:
    """The same for the data of a run that is measured.

    Raises:
        UsageError: for a folder of prepared data that is none yet.
    """
    for key, value in _within("data", data):
        if _is_no_cache(key, value) and "cache_dir" not in typed:
            raise UsageError(
                f"{key}={value}: of this run's own configuration, is no folder of prepared data; if it is "
                f"meant, type it again: {shlex.quote(f'{key}={value}')}"
            )


def check_directory(directory: Path) -> None:
    """Refuse a run directory in which a link leads out, or something else than a file or a folder lies: it
    would be written through, or waited for. A folder of it may lie elsewhere if it holds what a run leaves
    there. What W&B keeps is its own.

    Raises:
        UsageError: for the first.
    """
    for path in _entries(directory):
        is_folder = path.is_dir()
        if path.is_symlink() and not path.resolve().is_relative_to(directory.resolve()):
            if is_folder and path.parent == directory and _is_held(path):
                continue
            raise UsageError(
                f"{path}: is a link that leads out of the run directory, and would be written through; put "
                "what it leads to in its place, or remove it"
            )
        if path.exists() and not (is_folder or path.is_file()):
            raise UsageError(f"{path}: is no file, but a pipe or a device; remove it")


def typed_again(overrides: Sequence[str], directory: Path) -> list[str]:
    """The words of a command line by which something is written elsewhere; who goes on with the run from its
    own configuration has to type them again.

    Args:
        overrides: in Hydra's grammar.
        directory: of the run.
    """
    found = []
    for word in [shown([text]) for text in overrides]:
        key, _, value = word.partition("=")
        group, _, name = key.rpartition(".")
        if group.split(".")[0] in WRITING and _leads_out(name, value, directory):
            found.append(shlex.quote(word))
    return found


def _is_held(folder: Path) -> bool:
    """Whether a folder holds what a run leaves in one of its name."""
    return folder.name in HELD and any(folder.glob(HELD[folder.name]))


def _entries(directory: Path) -> Iterator[Path]:
    """What lies in a directory, and in its folders but W&B's."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        yield path
        if path.name != "wandb" and path.is_dir() and not path.is_symlink():
            yield from sorted(path.iterdir())


def _leading_out(values: Mapping[str, Any], directory: Path) -> Iterator[tuple[str, str]]:
    for group in WRITING:
        for key, value in _within(group, values.get(group)):
            name = key.rpartition(".")[2]
            if isinstance(value, str) and name not in TEXTS and _leads_out(name, value, directory):
                yield key, value


def _leads_out(name: str, value: str, directory: Path) -> bool:
    if "://" in value or value.startswith(("file:", "~")) or "$" in value or ".." in PurePath(value).parts:
        return True
    path = Path(value)
    if not path.is_absolute() and name not in DIRECTORIES:
        return False
    return not absolute(value).resolve().is_relative_to(directory.resolve())


def _is_no_cache(key: str, value: Any) -> bool:
    """Whether a directory for prepared data is not yet one."""
    return key.endswith(".cache_dir") and isinstance(value, str) and not (absolute(value) / "locks").is_dir()


def _is_typed(key: str, typed: Sequence[str]) -> bool:
    return any(key == word or key.startswith(f"{word}.") for word in typed)


def _within(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Every single value of a node, by its dotted name."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            if name != "_target_":
                yield from _within(f"{key}.{name}", child)
    elif isinstance(node, list):
        for child in node:
            yield from _within(key, child)
    else:
        yield key, node
