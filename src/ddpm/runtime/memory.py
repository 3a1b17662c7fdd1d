"""How much memory there is, how much was held, and how the process allocates it."""

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

GIB = 1 << 30

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux states the limits of control groups, by which containers and batch systems share a machine."""

OWN_CGROUPS = Path("/proc/self/cgroup")
"""Which of them this process is in."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""

NEVER = 2**31 - 1


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device, of which a process may use as much; 0 where that is not known.

    For a CPU that is what the machine has, or what the process may hold where a container or a batch system
    limits it.
    """
    if device.type == "cpu":
        return min([of_machine, *_cgroup_limits()]) if (of_machine := _memory_of_machine()) else 0
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return 0


def free_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU that nobody holds just now; of another device all that it has. 0 where that is
    not known.
    """
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory_of(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """A CPU and a Mac's GPU have no error of their own for it, only a message."""
    said = any(words in str(error) for words in ("out of memory", "can't allocate memory"))
    return said or isinstance(error, torch.OutOfMemoryError)


def _memory_of_machine() -> int:
    if not hasattr(os, "sysconf"):  # Windows
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_limits() -> Iterator[int]:
    """Of every control group that this process is in, of version 2 and 1, and of those that these are in."""
    try:
        memberships = OWN_CGROUPS.read_text().splitlines()
    except OSError:  # no Linux
        return
    for membership in memberships:
        _, controllers, group = membership.split(":", 2)
        if not controllers:
            root, file = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        # within a container the path may be the host's and not exist; the container's own is at the root
        directory = root / group.lstrip("/")
        for path in (directory, *directory.parents):
            try:
                limit = (path / file).read_text().strip()
            except OSError:
                limit = ""
            if limit.isdecimal():  # not "max"
                yield int(limit)
            if path == root:
                break


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once so far: by tensors on a CUDA GPU, by the driver on a Mac's, which keeps what it
    has; elsewhere by the whole process. 0 on the CPU of Windows, where it is not known.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    return peak_of_process()


def peak_of_process() -> int:
    """Most bytes of the host's memory that this process has held; 0 on Windows, where it is not known."""
    if sys.platform == "win32":
        return 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def keep_freed_memory() -> bool:
    """Let what tensors free be used by the next ones, rather than go back to the system.

    glibc asks the system for every block of more than a few megabytes, and returns it when it is freed; each
    of its pages is then cleared at the first touch. In a training step on a CPU that is 40,000 to 150,000
    pages and of the order of a tenth of the time.

    Returns:
        Whether this process has glibc's allocator, and it agreed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, NEVER)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
