"""One writer for a run directory: a lock that says who writes there, and ends with its holder.

On one machine the kernel decides: a record lock of POSIX goes with the process that took it, however that
ends, and no process that it forked holds it on. Where the file system does not share such locks between
machines, or has none, a sign of life decides: the holder touches the file every few seconds.
"""

import json
import logging
import os
import platform
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ddpm import bounded
from ddpm.errors import UsageError

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

NAME = ".lock"

BEAT = 10.0
"""Seconds between two signs of life."""

LIMIT = 60.0
"""Seconds without one after which a holder on another machine counts as dead."""

SETTLED = 3.0
"""Seconds until every machine sees what one of them has written."""

LOOK = 1.0
"""Seconds for which a look at the file holds."""

_taken: set[Path] = set()  # by this process, to which the kernel would give a lock again


class HeldError(UsageError):
    """Somebody else writes there."""


@dataclass(frozen=True)
class Holder:
    """Who took a lock.

    Attributes:
        host: its name.
        machine: what tells a start of a machine from every other; the host's name where nothing does.
        pid: of the process.
        born: when that process was started, in the kernel's ticks, so that a reused number is told apart;
            None where nobody says it.
        since: when it took the lock.
    """

    host: str
    machine: str
    pid: int
    born: int | None
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class Lock:
    """A lock on a directory, held by this process until it is released or the process ends.

    Attributes:
        succeeded: the holder before, which is dead and did not release it; None where there was none.
        last_sign: when that one was last seen alive, in seconds since 1970; None likewise.
    """

    def __init__(
        self,
        path: Path,
        file: int,
        content: bytes,
        succeeded: Holder | None = None,
        last_sign: float | None = None,
    ):
        self.path = path
        self.succeeded = succeeded
        self.last_sign = last_sign
        self._file = file
        self._content = content
        self._looked = time.monotonic()
        self._is_lost = False
        self._looking = threading.Lock()
        self._released = threading.Event()
        threading.Thread(target=self._beat, name="lock of the run directory", daemon=True).start()

    def is_lost(self) -> bool:
        """Whether another process has taken it, having seen no sign of life; then nothing may be written."""
        if not self._is_lost and time.monotonic() - self._looked > LOOK:
            self._look()
        return self._is_lost

    def release(self) -> None:
        """Let another process write. Doing it twice is doing it once."""
        if self._released.is_set():
            return
        self._released.set()
        self._look()
        with suppress(OSError):
            if not self._is_lost and sys.platform != "win32":  # while it is ours
                self.path.unlink()
        os.close(self._file)
        with suppress(OSError):
            if not self._is_lost and sys.platform == "win32":  # where no open file can be deleted
                self.path.unlink()
        _taken.discard(self.path)

    def _look(self) -> None:
        """Compare the file with what this process wrote. One that somebody has deleted is nobody's."""
        self._looked = time.monotonic()
        with suppress(OSError), self._looking:
            same = os.path.samestat(os.fstat(self._file), self.path.stat())
            self._is_lost = not same or _read(self._file) != self._content

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            self._look()
            if self._is_lost:
                return
            with suppress(OSError):  # a file system that is away for a while
                _touch(self._file, self.path)


def take(directory: Path, key: str = "hydra.run.dir") -> Lock:
    """Take the lock of a directory that is there.

    Waits, and says so, where only time can tell whether the holder is alive.

    Args:
        directory: absolute.
        key: where the user named it, for messages.

    Raises:
        HeldError: where another process, or another run of this one, writes there.
        OSError: where no file can be made there.
    """
    path = directory.resolve() / NAME
    if path in _taken:
        raise HeldError(
            f"{key}={directory}: another run of this process writes there; choose another directory"
        )
    while (lock := _taken_or_made(path, directory, key)) is None:
        pass
    _taken.add(path)
    for part in path.parent.glob(f"{NAME}.*"):  # of those that were killed as they took it
        part.unlink(missing_ok=True)
    return lock


def is_held(directory: Path) -> bool:
    """Whether somebody writes in a directory, as far as a look tells; nothing is taken or changed."""
    path = directory.resolve() / NAME
    if path in _taken:  # to open and close it would end the kernel's lock
        return True
    try:
        holder, silent = _decoded(bounded.beginning(path, 4096)), time.time() - path.stat().st_mtime
    except (OSError, UsageError):
        return False
    if holder is not None and holder.machine == _machine() and holder.born is not None:
        return _is_alive(holder)
    return silent <= LIMIT


def _taken_or_made(path: Path, directory: Path, key: str) -> Lock | None:
    """The lock; None where its file came or went meanwhile.

    Raises:
        HeldError: where another process has it.
    """
    content = _encoded(_this_process())
    file = _made(path, content)
    if file is not None:
        return Lock(path, file, content)
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    lock = None
    try:
        lock = _taken_over(path, file, content, directory, key)
    finally:
        if lock is None:
            os.close(file)
    return lock


def _made(path: Path, content: bytes) -> int | None:
    """Make the file, so that it is never seen without its content and without the kernel's lock on it.

    Returns:
        Its descriptor; None where the file is there.
    """
    if path.exists():
        return None
    part = path.with_name(f"{NAME}.{platform.node()}.{os.getpid()}")
    file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _kernel_lock(file)
        _write(file, content)
        try:
            os.link(part, path)
        except FileNotFoundError:  # deleted by one that was faster
            raise FileExistsError from None
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            other = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            os.close(file)
            file = other
            _kernel_lock(file)
            _write(file, content)
    except BaseException as error:
        os.close(file)
        if isinstance(error, FileExistsError):
            return None
        raise
    finally:
        with suppress(OSError):
            part.unlink()
    return file


def _taken_over(path: Path, file: int, content: bytes, directory: Path, key: str) -> Lock | None:
    """The lock that is in an open file, if its holder is dead; None where the file is gone meanwhile.

    Raises:
        HeldError: where it is alive.
    """
    kernel_gave = _kernel_lock(file)
    holder = _decoded(_read(file))
    if kernel_gave is False:
        for _ in range(10):
            if holder is not None and (holder.machine != _machine() or _is_alive(holder)):
                break
            time.sleep(0.05)  # who has it just now is about to write over one that is dead
            holder = _decoded(_read(file))
        raise _refusal(key, directory, holder)
    if not _is_at(file, path):
        return None
    is_here = holder is not None and holder.machine == _machine()
    if kernel_gave is None and is_here and holder is not None and _is_alive(holder):
        raise _refusal(key, directory, holder)
    last_sign = os.fstat(file).st_mtime
    certain = kernel_gave and is_here
    if not certain:
        _wait_for_a_sign(file, directory, key, holder)
    _write(file, content)
    if not certain:  # another machine may have waited as well: the one that wrote last has it
        time.sleep(SETTLED)
        if _read(file) != content:
            raise _refusal(key, directory, _decoded(_read(file)))
    return Lock(path, file, content, holder, last_sign)


def _kernel_lock(file: int) -> bool | None:
    """Whether the kernel gave the lock; None where the system or the file system has none."""
    if sys.platform == "win32":
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file still has its name: its holder deletes it when it is done."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except OSError:
        return False


def _read(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, 4096)


def _write(file: int, content: bytes) -> None:
    os.lseek(file, 0, os.SEEK_SET)
    os.write(file, content)
    os.ftruncate(file, len(content))
    os.fsync(file)


def _touch(file: int, path: Path) -> None:
    """Set the time of a file to that of its file system. To open it anew would end the kernel's lock."""
    os.utime(file if os.utime in os.supports_fd else path)


def _wait_for_a_sign(file: int, directory: Path, key: str, holder: Holder | None) -> None:
    """Wait until the holder has been silent for `LIMIT` seconds.

    Raises:
        HeldError: as soon as it gives a sign of life.
    """
    seen, began = os.fstat(file).st_mtime_ns, time.monotonic()
    said = False
    # where its clock was ahead, or has been set back since, the time of waiting counts alone
    while (silent := max(_clock_of(directory) - seen / 1e9, time.monotonic() - began)) <= LIMIT:
        if not said:
            log.warning(
                "%s is locked by %s, which was alive %.0f s ago: waiting up to %.0f s for a sign of life",
                directory, holder or "an unknown process", max(0.0, silent), LIMIT - max(0.0, silent),
            )  # fmt: skip
            said = True
        time.sleep(min(BEAT / 4, max(0.05, LIMIT - silent)))
        if os.fstat(file).st_mtime_ns != seen or _decoded(_read(file)) != holder:
            raise _refusal(key, directory, _decoded(_read(file)))


def _clock_of(directory: Path) -> float:
    """What time it is for the file system that a directory is on; that of this machine may differ."""
    probe = directory / f"{NAME}.{platform.node()}.{os.getpid()}"
    try:
        probe.touch()
        os.utime(probe)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _refusal(key: str, directory: Path, holder: Holder | None) -> HeldError:
    return HeldError(
        f"{key}={directory}: {holder or 'another process'} writes there; wait for its end, or choose another "
        "directory"
    )


def _this_process() -> Holder:
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return Holder(platform.node(), _machine(), os.getpid(), _born(os.getpid()), now)


def _machine() -> str:
    """One kernel since its start, whatever its containers call themselves."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def _born(pid: int) -> int | None:
    """When a process of this machine was started; None where there is none, or nobody says it."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _is_alive(holder: Holder) -> bool:
    """Whether a process of this machine is still the one that it was."""
    return holder.born is not None and _born(holder.pid) == holder.born


def _encoded(holder: Holder) -> bytes:
    return json.dumps(vars(holder)).encode() + b"\n"


def _decoded(content: bytes) -> Holder | None:
    """Who wrote a lock; None for what is none of ours or is not written yet."""
    try:
        values: Any = json.loads(content)
        return Holder(
            str(values["host"]),
            str(values["machine"]),
            int(values["pid"]),
            values["born"],
            str(values["since"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
