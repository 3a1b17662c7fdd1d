"""Files that are whole or not there."""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from ddpm.training.checkpoints.names import being_written

log = logging.getLogger(__name__)


def put(content: Any, path: Path) -> None:
    """Write what `torch.save` takes beside its place, flush it, and put it there, so that its name always
    means a whole file, also after a power cut. Its directory is made where there is none.

    Raises:
        OSError: where it cannot be written; then nothing is left of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    move(save(content, being_written(path)), path)


def save(content: Any, path: Path) -> Path:
    """Write what `torch.save` takes, and flush it; nothing is left of what cannot be written."""
    try:
        with path.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def move(path: Path, name: Path) -> None:
    """Give a file another name in its directory, for good; the file is not left where that cannot be done."""
    try:
        os.replace(path, name)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    flush_directory(name.parent)


def link(path: Path, name: Path) -> None:
    """Make `name` another name of the file, or a copy where the file system has no hard links."""
    temporary = being_written(name)
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        shutil.copy2(path, temporary)  # with its time, by which a reader knows that they are one
    os.replace(temporary, name)


def flush_directory(directory: Path) -> None:
    """Make the names in a directory outlive a power cut, where the file system can."""
    if os.name == "nt":  # where no directory can be opened
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        log.debug("%s: names cannot be flushed here", directory)
    finally:
        os.close(descriptor)
