"""A folder of things that were prepared once, such as decoded images, for the runs that follow."""

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raised whenever the files of an entry change their meaning: old entries are then no longer found."""

ABOUT = "about.json"
BUILDING = ".building"
NAME = re.compile(r"[a-z0-9_-]{1,40}-[0-9a-f]{16}")
FileState = tuple[str, int, int]
"""Name, size in bytes and time of change in ns of a file: what tells quickly whether it is as it was."""


@dataclass(frozen=True)
class Entry:
    """Something that was prepared.

    Attributes:
        path: its folder.
        about: plain containers that say what it is.
    """

    path: Path
    about: Mapping[str, Any]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self.about["files"].values())

    @property
    def last_used(self) -> float:
        """Seconds since 1970."""
        return (self.path / ABOUT).stat().st_mtime


class Cache:
    """Entries that are each built once, by one process while the others wait, and then shared by all.

    An entry appears whole or not at all: it is built in a folder of its own and then renamed. So however a
    build ends, nothing half-built is ever used. The lock only saves the others the same work; the operating
    system lets go of it when its owner dies.

    Args:
        directory: where entries are kept; None is $DDPM_CACHE or ~/.cache/ddpm.
    """

    def __init__(self, directory: str | Path | None = None):
        named = directory or os.environ.get("DDPM_CACHE") or "~/.cache/ddpm"
        self.directory = Path(os.path.expanduser(named)).absolute()

    def get(self, name: str, key: str, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """The entry of a key, built if there is none or if its files are not whole.

        Args:
            name: for people, such as the folder's; need not be unique.
            key: a hash that changes whenever the entry would; see `key`.
            build: writes the entry's files into an empty folder, and returns what to say about it.

        Raises:
            ValueError: where the directory cannot be written to, or is full.
        """
        slug = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:40] or "data"
        path = self.directory / f"{slug}-{key[:16]}"
        if found := _whole(path):
            return _used(found)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._lock(path.name):
                if found := _whole(path):
                    return _used(found)
                self._remove(path)
                return self._build(path, build)
        except OSError as error:
            if error.filename and not str(error.filename).startswith(str(self.directory)):
                raise  # of what it is prepared from
            raise ValueError(
                f"data.cache_dir={self.directory}: prepared data could not be written there ({error}); make "
                "room, or name another folder with data.cache_dir= or DDPM_CACHE"
            ) from error

    def entries(self) -> list[Entry]:
        """Everything whole that is kept, the last used first."""
        if not self.directory.is_dir():
            return []
        paths = [path for path in self.directory.iterdir() if NAME.fullmatch(path.name)]
        found = [entry for path in paths if (entry := _whole(path))]
        return sorted(found, key=lambda entry: entry.last_used, reverse=True)

    def clear(self) -> int:
        """Remove every entry and what killed builds left behind, but nothing that is being built.

        Runs that read an entry go on reading it.

        Returns:
            how many bytes were freed.
        """
        if not self.directory.is_dir():
            return 0
        freed = 0
        built = {path.name.removesuffix(BUILDING)[: -len(".xxxxxxxx")] for path in self._half_built("*")}
        whole = {path.name for path in self.directory.iterdir() if (path / ABOUT).is_file()}
        for name in sorted(name for name in built | whole if NAME.fullmatch(name)):
            try:
                with FileLock(self._lock_file(name), timeout=0):
                    freed += self._remove(self.directory / name)
            except Timeout:
                logger.info("%s is being prepared and stays", name)
        return freed

    def _build(self, path: Path, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
        building = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=BUILDING, dir=self.directory))
        try:
            about = dict(build(building))
            about["files"] = {file.name: file.stat().st_size for file in sorted(building.iterdir())}
            (building / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
            for file in building.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            building.chmod(0o755)
            try:
                building.rename(path)
            except OSError:
                # Where the file system knows no locks, another process may have been first.
                if not _whole(path):
                    raise
                shutil.rmtree(building)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return Entry(path, about)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = FileLock(self._lock_file(name))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("another process prepares %s; waiting for it", name)
            lock.acquire(poll_interval=0.1)
        try:
            yield
        finally:
            lock.release()

    def _lock_file(self, name: str) -> Path:
        (self.directory / "locks").mkdir(exist_ok=True)
        return self.directory / "locks" / name

    def _remove(self, path: Path) -> int:
        """Remove an entry and what killed builds of it left; only for the owner of its lock."""
        freed = 0
        for folder in [path, *self._half_built(path.name)]:
            if folder.is_dir():
                freed += sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                shutil.rmtree(folder)
        return freed

    def _half_built(self, name: str) -> Iterator[Path]:
        return self.directory.glob(f"{name}.????????{BUILDING}")


def key(settings: Mapping[str, Any], files: Iterable[FileState]) -> str:
    """A hash of how something is prepared, and of the state of the files that it is prepared from."""
    digest = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for name, size, changed in files:
        digest.update(f"{name}\0{size}\0{changed}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def state(file: Path) -> FileState:
    """The state of one file."""
    status = file.stat()
    return str(file), status.st_size, status.st_mtime_ns


def _whole(path: Path) -> Entry | None:
    """The entry in a folder, if it is there and its files have the sizes that they were written with."""
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        whole = all((path / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, ValueError, KeyError):
        return None
    return Entry(path, about) if whole else None


def _used(entry: Entry) -> Entry:
    with suppress(OSError):  # a cache that is shared may be read-only
        os.utime(entry.path / ABOUT)
    return entry
