"""Other processes: which they are, whether they live, and how they are ended."""

import os
import platform
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def host() -> str:
    """The name of this machine, for messages."""
    return platform.node() or "unknown host"


def place() -> str:
    """Where a process id means something: this machine, and the container in it."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:
        return host()


def start_of(pid: int) -> str | None:
    """When a process began, as its system counts, so that a later process of the same number is another; None
    where there is no living process of this number, or it is not known.
    """
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def kill(pid: int, start: str | None) -> None:
    """End a process of this machine at once, whatever it does or waits for, unless another has its number."""
    if start is None or start_of(pid) == start:
        with suppress(OSError):
            os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def terminate(pid: int) -> None:
    """Ask a process of this machine to end."""
    with suppress(OSError):
        os.kill(pid, signal.SIGTERM)


def descendants() -> list[int]:
    """Processes that this one has started, and that those have."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    new = [os.getpid()]
    while new:
        new = [child for pid in new for child in children.get(pid, ())]
        found += new
    return found


def _parents() -> list[tuple[int, int]]:
    """(process, its parent), of all that there are."""
    if PROC.joinpath("self").exists():
        pairs = []
        for entry in PROC.iterdir():
            if entry.name.isdecimal():
                with suppress(OSError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    pairs.append((int(entry.name), int(fields[1])))
        return pairs
    with suppress(OSError, subprocess.SubprocessError):  # macOS
        listed = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=5, check=True
        ).stdout
        return [(int(a), int(b)) for a, b in (line.split() for line in listed.splitlines())]
    return []
