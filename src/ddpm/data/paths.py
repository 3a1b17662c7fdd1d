"""The files and folders that `data.path` names."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ddpm.data.prepared.cache import FileState

OUTPUT_OF = ("train", "sample", "evaluate", "inspect", "encode")
"""Folders in `logs` that programs write their run directories into."""

RUN = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")
"""How a run directory's name begins."""


def is_url(path: str | Path) -> bool:
    """Whether it is behind a protocol, such as `s3://`."""
    return "://" in str(path)


def existing_folder(path: str | Path) -> Path:
    """The folder that data.path names.

    Raises:
        ValueError: where there is none.
    """
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"data.path={path} is a file; name the folder that it is in")
    raise ValueError(f"data.path={path}: there is no such folder{_searched(folder)}; check the spelling")


def existing_file(path: str | Path) -> Path:
    """The file that data.path names.

    Raises:
        ValueError: where there is none.
    """
    file = Path(os.path.expanduser(path))
    if file.is_file():
        return file
    if file.is_dir():
        raise ValueError(f"data.path={path} is a folder; name a file in it, or use data=folder")
    raise ValueError(f"data.path={path}: there is no such file{_searched(file)}; check the spelling")


def existing(path: str | Path) -> Path:
    """The file or folder that data.path names.

    Raises:
        ValueError: where there is neither.
    """
    found = Path(os.path.expanduser(path))
    if found.exists():
        return found
    raise ValueError(
        f"data.path={path}: there is no such file or folder{_searched(found)}; check the spelling"
    )


def _visible_in(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def files_below(folder: Path, folders: list[str] | None = None) -> Iterator[FileState]:
    """Every file below a folder that is not hidden, through links too, but not round in circles; without
    what runs wrote there.

    Args:
        folder: its path, which the names are relative to.
        folders: to which the names of the folders below it are added.
    """
    yield from _files(os.fspath(folder), "", (), [] if folders is None else folders)


def _searched(path: Path) -> str:
    """Where a relative path was looked for."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def _files(folder: str, prefix: str, above: tuple[str, ...], folders: list[str]) -> Iterator[FileState]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _visible_in(folder):
        if _true(entry.is_dir):
            if _is_output(entry):
                continue
            folders.append(f"{prefix}{entry.name}")
            yield from _files(entry.path, f"{prefix}{entry.name}/", (*above, real), folders)
        elif _true(entry.is_file):
            status = entry.stat()
            yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns
        elif entry.is_symlink():
            yield f"{prefix}{entry.name}", 0, 0


def _is_output(entry: os.DirEntry[str]) -> bool:
    """Whether runs were written there, as they are where a person stands: their grids are no images to train
    on.
    """
    if Path(entry.path).parent.name != "logs" or entry.name not in OUTPUT_OF:
        return False
    return all(child.name == "multirun" or RUN.match(child.name) for child in _visible_in(entry.path))


def _true(question: Callable[[], bool]) -> bool:
    """What the file system says; False where a link leads to itself."""
    try:
        return question()
    except OSError:
        return False
