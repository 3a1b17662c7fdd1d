"""How many cores this process may use."""

import os


def available_cores() -> int:
    """Cores that this process may run on: those that taskset or SLURM leave it."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
