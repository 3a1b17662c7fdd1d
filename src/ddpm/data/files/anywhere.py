"""The files of a set wherever they are, known by the path alone: a folder, an archive or a bucket."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from ddpm.data.files import Files
from ddpm.data.files.archived import ArchiveFiles
from ddpm.data.files.bucket import BucketFiles
from ddpm.data.files.on_disk import FolderFiles
from ddpm.data.paths import existing, is_url
from ddpm.data.prepared import cache
from ddpm.data.prepared.cache import FileState


class Opened(NamedTuple):
    """Files at a path.

    Attributes:
        states: of all that is read there; another wherever a file is.
        files: lists them; may be called once.
    """

    states: Sequence[FileState]
    files: Callable[[], Files]


def located(path: str | Path) -> str:
    """The path by which a cache knows these files."""
    return str(path).rstrip("/") if is_url(path) else os.path.realpath(os.path.expanduser(path))


def opened_at(path: str | Path, key: str, stack: ExitStack) -> Opened:
    """The files at a path.

    Args:
        path: a folder, a zip or tar file, or the URL of a folder.
        key: that names it, for messages.
        stack: closes what is opened here.

    Raises:
        ValueError: where there is no such path; from `Opened.files`, where it is neither.
    """
    try:
        if is_url(path):
            bucket = BucketFiles(str(path))
            return Opened(bucket.files, lambda: bucket)
        where = existing(path).resolve()
    except ValueError as error:
        raise ValueError(str(error).replace("data.path=", f"{key}=", 1)) from error
    if where.is_dir():
        folder = FolderFiles(where)
        return Opened(folder.files, lambda: folder)
    opened = stack.enter_context(where.open("rb"))
    called = f"{key}={path}"
    return Opened([cache.state(where)], lambda: ArchiveFiles(str(path), opened, stack, called=called))
