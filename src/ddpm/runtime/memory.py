"""How much memory there is, how much was held, and how the process allocates it."""

import ctypes
import os
import sys

import torch

GIB = 1 << 30

M_TRIM_THRESHOLD = -1

M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

NEVER = 2**31 - 1


def memory_of(device: torch.device) -> int:
    """Bytes of memory of a device; 0 where that is not known."""
    if device.type == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type == "mps":
        return torch.mps.recommended_max_memory()
    return 0


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once so far: by tensors on an NVIDIA GPU; elsewhere by the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
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
