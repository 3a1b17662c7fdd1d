"""A folder of things that were prepared once, such as decoded images, for the runs that follow."""

import atexit
import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from ddpm.data.prepared import checksums, in_use

logger = logging.getLogger(__name__)

FORMAT = 3
"""Raised whenever the files of an entry change their meaning: old entries are then no longer found."""

GB = 10**9
ABOUT = "about.json"
BUILDING, REMOVED = ".building", ".removed"
NAME = re.compile(r"[a-z0-9_-]{1,40}-[0-9a-f]{16}")
LEFTOVER = re.compile(rf"({NAME.pattern})\.[0-9a-z_]{{8}}({re.escape(BUILDING)}|{re.escape(REMOVED)})")

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""Errors of file systems that know no locks."""

LONG_AGO = 7 * 86_400
"""Seconds after which something is taken to be unused where the file system knows no locks."""

OLD_VERSION = "of an older version"
SUPERSEDED = "older than its source"
WITHOUT_SOURCE = "without a source"
LEAST_RECENT = "the least recently used"

ELSEWHERE = (Path("/dev/shm"), Path(tempfile.gettempdir()))
"""Where an entry is kept for as long as it is used, if the cache cannot take it: in memory, or on another
disk.
"""

FileState = tuple[str, int, int]
"""Name, size in bytes and time of change in ns of a file: what tells quickly whether it is as it was."""


@dataclass(frozen=True)
class Entry:
    """Something that was prepared.

    Attributes:
        path: its folder.
        about: plain containers that say what it is. Some of them the cache itself knows: `files`, their sizes
            by name; `checksums`, theirs; `checksum`, that of all that is said here. All others are optional:
            `format`, of its files; `built`, when, in a form that sorts; `family`, the same for all states of
            one source that are prepared alike; `source`, the path of that source; `source_state`, its size
            and time of change where it is a file.
        mark: says that it is in use, if it is: see `release`.
    """

    path: Path
    about: Mapping[str, Any]
    mark: in_use.Mark | None = field(default=None, repr=False, compare=False)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(self.about["files"].values())

    @property
    def last_used(self) -> float:
        """Seconds since 1970; 0 where it was just removed."""
        try:
            return (self.path / ABOUT).stat().st_mtime
        except OSError:
            return 0.0

    def release(self) -> None:
        """It is no longer in use, as far as this object is concerned."""
        if self.mark is not None:
            self.mark.end()


class Removed(NamedTuple):
    """An entry that is gone, and why."""

    entry: Entry
    why: str


class NoRoomError(ValueError):
    """What is prepared does not fit where it is built; says what would help."""


class Cache:
    """Entries that are each built once, by one process while the others wait, and then shared by all.

    An entry appears whole or not at all: it is built in a folder of its own and then renamed. So however a
    build ends, nothing half-built is ever used. Whenever one is opened its checksums are verified, and one
    that is damaged is built anew. The lock only saves the others the same work; the operating system lets go
    of it when its owner dies. Nor is anything removed that a living process uses, and what is removed goes at
    once.

    Args:
        directory: where entries are kept; None is $DDPM_CACHE or ~/.cache/ddpm.
        limit: GB that all entries may take; looked at after each build. None is no limit.
    """

    def __init__(self, directory: str | Path | None = None, limit: float | None = None):
        named = directory or os.environ.get("DDPM_CACHE") or "~/.cache/ddpm"
        self.directory = Path(os.path.expanduser(named)).absolute()
        self.limit = limit

    def get(self, name: str, key: str, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
        """The entry of a key, built if there is none or if its files are not whole.

        It is in use, which keeps it, until it is released or this process ends.

        Args:
            name: for people, such as the folder's; need not be unique.
            key: a hash that changes whenever the entry would; see `key`.
            build: writes the entry's files into an empty folder, and returns what to say about it.

        Where the directory cannot be written to, or is full, the entry is told of and built elsewhere, in
        memory if it fits there, for the processes that use it now.

        Raises:
            ValueError: where there is no room for it anywhere.
        """
        try:
            return self._get(name, key, build)
        except NoRoomError as error:
            return self._elsewhere(name, key, build, error)

    def _get(self, name: str, key: str, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
        path = self._path(name, key)
        if found := _opened(path):
            return found
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._lock(path.name) as knows_locks:
                if found := _opened(path):
                    return found
                if path.is_dir():
                    logger.warning("%s is damaged, and is prepared anew", path)
                self._discard(path)
                for leftover in self._leftovers(path.name) if knows_locks else ():
                    shutil.rmtree(leftover)
                entry = self._build(path, build)
        except OSError as error:
            if error.filename and not str(error.filename).startswith(str(self.directory)):
                raise  # of what it is prepared from
            raise NoRoomError(
                f"data.cache_dir={self.directory}: prepared data could not be written there ({error}); make "
                "room, or name another folder with data.cache_dir= or DDPM_CACHE"
            ) from error
        self._keep_to_the_limit(entry)
        return entry

    def _path(self, name: str, key: str) -> Path:
        slug = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")[:40] or "data"
        return self.directory / f"{slug}-{key[:16]}"

    def _elsewhere(
        self, name: str, key: str, build: Callable[[Path], Mapping[str, Any]], why: NoRoomError
    ) -> Entry:
        """The entry in a cache of this user's running processes."""
        for place in ELSEWHERE:
            other = Cache(place / f"ddpm-{os.getuid() if hasattr(os, 'getuid') else 0}")
            with suppress(OSError, NoRoomError):
                other.directory.mkdir(mode=0o700, exist_ok=True)
                if not _is_ours(other.directory):
                    continue
                other.clear()  # what killed processes left
                entry = other._get(name, key, build)
                atexit.register(_let_go, other, entry)
                first, *_ = str(why).split("; ")
                logger.warning("%s; it is kept in %s while this runs, and prepared anew then", first, place)
                return entry
        raise why

    def find(self, name: str, key: str) -> Entry | None:
        """The entry of a key if there is one and its files are whole; in use until it is released."""
        return _opened(self._path(name, key))

    def latest(self, family: str) -> Entry | None:
        """The entry of a family that was built last, unless it is damaged; in use until it is released."""
        found = [entry for entry in self.entries() if entry.about.get("family") == family]
        return _opened(max(found, key=_built).path) if found else None

    def entries(self) -> list[Entry]:
        """Everything whole that is kept, the last used first."""
        found = [entry for path in self._named() if (entry := _whole(path))]
        return sorted(found, key=lambda entry: entry.last_used, reverse=True)

    def is_used(self, entry: Entry) -> bool:
        """Whether a living process uses it. Where the file system knows no locks: whether one may."""
        try:
            with in_use.alone(entry.path / ABOUT) as alone:
                return _may_be_used(alone, entry.path)
        except OSError:
            return False

    def spare(self) -> int:
        """Bytes of all entries that nobody uses."""
        return sum(entry.size for entry in self.entries() if not self.is_used(entry))

    def prune(self, limit: float | None) -> tuple[list[Removed], int]:
        """Remove what killed builds left and what no source needs, then the least recently used entries.

        Args:
            limit: GB that may stay; None is any number.

        Returns:
            what was removed, and the bytes that the leftovers took.
        """
        entries = self.entries()
        freed = self._remove_leftovers()
        return self._remove_beyond(limit, entries, needless(entries)), freed

    def clear(self) -> int:
        """Remove every entry and what killed builds left, but nothing that is being built or used.

        Where the file system knows no locks, the person who asks for it knows better.

        Returns:
            how many bytes were freed.
        """
        freed = self._remove_leftovers(careful=False)
        for entry in self.entries():
            freed += entry.size if self._remove(entry.path, careful=False) else 0
        return freed

    def _build(self, path: Path, build: Callable[[Path], Mapping[str, Any]]) -> Entry:
        building = Path(tempfile.mkdtemp(prefix=f"{path.name}.", suffix=BUILDING, dir=self.directory))
        try:
            about = {"format": FORMAT, "built": datetime.now(UTC).isoformat(), **build(building)}
            files = sorted(building.iterdir())
            about["files"] = {file.name: file.stat().st_size for file in files}
            about["checksums"] = {file.name: checksums.of_file(file) for file in files}
            about = json.loads(json.dumps(about))  # as it will be read
            about["checksum"] = checksums.of_values(about)
            (building / ABOUT).write_text(json.dumps(about, indent=1), encoding="utf-8")
            for file in building.iterdir():
                with file.open("r+b") as opened:  # Windows flushes what can be written only
                    os.fsync(opened.fileno())
            building.chmod(0o755)
            # So that it is in use from the moment it appears.
            mark = in_use.mark(building / ABOUT) if in_use.CAN_MOVE else None
            try:
                building.rename(path)
            except OSError:
                # Where the file system knows no locks, another process may have been first.
                found = _opened(path)
                if found is None:
                    raise
                shutil.rmtree(building)
                return found
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return Entry(path, about, mark or in_use.mark(path / ABOUT))

    def _keep_to_the_limit(self, built: Entry) -> None:
        """Remove what an entry that was just built supersedes, and what goes beyond the limit."""
        self._remove_leftovers()
        entries = self.entries()
        family = built.about.get("family")
        superseded = {
            entry.path: SUPERSEDED
            for entry in entries
            if family is not None and entry.about.get("family") == family and entry.path != built.path
        }
        removed = self._remove_beyond(self.limit, entries, superseded)
        if removed:
            is_full = any(one.entry.path not in superseded for one in removed)
            by = f"; data.cache_limit={self.limit:g} (GB)" if is_full else ""
            names = ", ".join(described(one) for one in removed)
            logger.info("removed from %s: %s%s", self.directory, names, by)
        gone = {one.entry.path for one in removed}
        left = sum(entry.size for entry in entries if entry.path not in gone)
        if self.limit is not None and left > self.limit * GB:
            what = f"{built.path.name} alone takes {size_in_words(built.size)}"
            if built.size <= self.limit * GB:
                what = f"{size_in_words(left)} in {self.directory} is in use, or not ours to remove,"
            logger.warning("data.cache_limit=%g (GB): %s and stays", self.limit, what)

    def _remove_beyond(
        self, limit: float | None, entries: Sequence[Entry], at_once: Mapping[Path, str]
    ) -> list[Removed]:
        """Remove some entries in any case, then those without need and the least recently used beyond a
        limit.
        """
        reasons = {**needless(entries), **at_once}
        order = sorted(
            entries, key=lambda entry: (entry.path not in at_once, entry.path not in reasons, entry.last_used)
        )
        total = sum(entry.size for entry in entries)
        removed = []
        for entry in order:
            is_beyond = limit is not None and total > limit * GB
            if (entry.path in at_once or is_beyond) and self._remove(entry.path):
                total -= entry.size
                removed.append(Removed(entry, reasons.get(entry.path, LEAST_RECENT)))
        return removed

    @contextmanager
    def _lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Be the only one who builds or removes entries of a name.

        Yields:
            False where the file system knows no locks, and nobody can be the only one.

        Raises:
            Timeout: where another process does, and this one is not to wait.
        """
        folder = self.directory / "locks"
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / name)
        knows_locks = True
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise
            logger.info("another process prepares %s; waiting for it", name)
            lock.acquire(poll_interval=0.1)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            knows_locks = False
        try:
            yield knows_locks
        finally:
            lock.release()

    def _remove(self, path: Path, *, careful: bool = True) -> bool:
        """Remove an entry that nobody builds or uses; whether it is gone.

        Args:
            path: of the entry.
            careful: leave it where it cannot be known whether somebody uses it.
        """
        try:
            with self._lock(path.name, wait=False), in_use.alone(path / ABOUT) as alone:
                if alone is False or (careful and _may_be_used(alone, path)):
                    return False
                self._discard(path)
        except Timeout:
            return False
        except FileNotFoundError:
            return True
        except PermissionError:  # of somebody else, in a cache that is shared
            return False
        except OSError as error:
            logger.warning("%s could not be removed (%s)", path, error)
            return False
        return True

    def _discard(self, path: Path) -> None:
        """Remove a folder, at once for all who look for it; only for the owner of its lock."""
        if path.is_dir():
            removed = path.with_name(f"{path.name}.{secrets.token_hex(4)}{REMOVED}")
            path.rename(removed)
            shutil.rmtree(removed)

    def _remove_leftovers(self, *, careful: bool = True) -> int:
        """Remove what is left of killed builds and removals, and entries that are damaged; the bytes that
        they took.
        """
        freed = 0
        damaged = [path for path in self._named() if (path / ABOUT).is_file() and not _whole(path)]
        for path in [*damaged, *self._leftovers()]:
            name = path.name.split(".")[0]
            with suppress(Timeout, OSError), self._lock(name, wait=False) as knows_locks:
                if knows_locks or not careful or _long_ago(path):
                    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
                    self._discard(path) if path.name == name else shutil.rmtree(path)
                    freed += size
        return freed

    def _named(self) -> list[Path]:
        """Folders that are called as entries are."""
        if not self.directory.is_dir():
            return []
        return [path for path in self.directory.iterdir() if NAME.fullmatch(path.name)]

    def _leftovers(self, name: str | None = None) -> list[Path]:
        """Folders that are half built or half removed, of one name or of all."""
        if not self.directory.is_dir():
            return []
        found = [(path, LEFTOVER.fullmatch(path.name)) for path in self.directory.iterdir()]
        return [path for path, match in found if match and name in (None, match[1])]


def _is_ours(directory: Path) -> bool:
    """Whether nobody else can put anything into a folder, in a place that everybody may write to."""
    status = directory.lstat()
    own = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return stat.S_ISDIR(status.st_mode) and own


def _let_go(other: Cache, entry: Entry) -> None:
    """Remove what was kept elsewhere, unless another process uses it still."""
    entry.release()
    other.clear()


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


def needless(entries: Iterable[Entry]) -> dict[Path, str]:
    """Why no source needs an entry, for those of which that is known quickly."""
    entries = list(entries)
    latest: dict[str, Entry] = {}
    for entry in sorted(entries, key=_built):
        latest[entry.about.get("family") or str(entry.path)] = entry
    stays = {entry.path for entry in latest.values()}
    found = {}
    for entry in entries:
        source = entry.about.get("source")
        if entry.about.get("format") != FORMAT:
            found[entry.path] = OLD_VERSION
        elif source is not None and not os.path.exists(source):
            found[entry.path] = WITHOUT_SOURCE
        elif entry.path not in stays or (source and _has_changed(source, entry.about.get("source_state"))):
            found[entry.path] = SUPERSEDED
    return found


def described(removed: Removed) -> str:
    """Something that was removed, for people."""
    return f"{removed.entry.path.name} ({size_in_words(removed.entry.size)}, {removed.why})"


def size_in_words(size: int) -> str:
    """Bytes, for people: 999 bytes, 1.5 kB, 12.3 GB."""
    if size < 1000:
        return f"{size} bytes"
    power = min(4, int(math.log10(size) / 3))
    return f"{size / 1000**power:.1f} {' kMGT'[power]}B"


def _built(entry: Entry) -> str:
    return str(entry.about.get("built", ""))


def _has_changed(source: str, state_then: Sequence[int] | None) -> bool:
    """Whether a file is another than it was; of folders that is not known quickly."""
    try:
        return state_then is not None and list(state(Path(source))[1:]) != list(state_then)
    except OSError:
        return True


def _whole(path: Path) -> Entry | None:
    """The entry in a folder, if it is there, what it says of itself is as it was written, and its files have
    the sizes of then. Those of earlier versions have no checksums; they are listed, and never opened.
    """
    try:
        about = json.loads((path / ABOUT).read_text(encoding="utf-8"))
        said = _said(about)
        whole = about.get("checksum", said) == said
        whole &= all((path / name).stat().st_size == size for name, size in about["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Entry(path, about) if whole else None


def _marked(path: Path) -> Entry | None:
    """The same, in use from now on."""
    mark = in_use.mark(path / ABOUT)
    found = None if mark is None else _whole(path)
    if found is None:
        return None
    with suppress(OSError):  # a cache that is shared may be read-only
        os.utime(path / ABOUT)
    return Entry(path, found.about, mark)


def _said(about: Mapping[str, Any]) -> str:
    """The checksum of what an entry says of itself."""
    return checksums.of_values({name: value for name, value in about.items() if name != "checksum"})


def _opened(path: Path) -> Entry | None:
    """The same, if nothing in it has changed since it was built."""
    found = _marked(path)
    if found is None:
        return None
    try:
        if "checksum" not in found.about or found.about["checksums"].keys() != found.about["files"].keys():
            raise OSError("it says nothing of its checksums")
        for name, checksum in found.about["checksums"].items():
            if checksums.of_file(path / name) != checksum:
                logger.warning("%s is not as it was written", path / name)
                break
        else:
            return found
    except OSError as error:  # of a disk that can no longer read it
        logger.warning("%s cannot be read (%s)", path, error)
    found.release()
    return None


def _may_be_used(alone: bool | None, path: Path) -> bool:
    return not _long_ago(path / ABOUT) if alone is None else not alone


def _long_ago(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > LONG_AGO
