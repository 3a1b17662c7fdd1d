"""What part of a machine each of several jobs gets that run at once, so that none slows another."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ddpm.errors import UsageError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that say how many threads a process computes with."""


def check(n_jobs: int, configs: Sequence[Mapping[str, Any]], gpus: int) -> None:
    """Refuse more jobs at once than there are devices for.

    Args:
        n_jobs: at once.
        configs: of the jobs.
        gpus: that are there; 0 where jobs compute on the CPU.

    Raises:
        UsageError: naming the key.
    """
    if n_jobs < 1:
        raise UsageError(f"hydra.launcher.n_jobs={n_jobs}: must be at least 1")
    if n_jobs == 1:
        return
    for config in configs:
        trainer = config.get("trainer") or {}
        devices = trainer.get("devices")
        if isinstance(devices, list | str) and devices != "auto":
            raise UsageError(
                f"hydra.launcher.n_jobs={n_jobs}: jobs at once are given their devices, and trainer.devices="
                f"{devices} names some; say how many a job takes, trainer.devices=1"
            )
        if int(trainer.get("num_nodes") or 1) > 1:
            raise UsageError(
                f"hydra.launcher.n_jobs={n_jobs}: jobs at once share this machine; leave trainer.num_nodes "
                "out"
            )
        each = devices_of(config) or 1
        if not gpus or on_cpu(config):
            continue
        if n_jobs * each > gpus:
            fits = gpus // each
            way = f"use hydra.launcher.n_jobs={fits}" if fits else "use fewer devices a job"
            raise UsageError(
                f"hydra.launcher.n_jobs={n_jobs}: jobs at once of trainer.devices={each} need "
                f"{n_jobs * each} GPUs, and there are {gpus}; {way}"
            )


def on_cpu(config: Mapping[str, Any]) -> bool:
    """Whether a job computes on the CPU wherever it is."""
    return (config.get("trainer") or {}).get("accelerator") == "cpu"


def share(place: int, n_jobs: int, config: Mapping[str, Any], gpus: int) -> dict[str, str]:
    """The environment variables that give a job its part.

    Args:
        place: among those at once, from 0.
        n_jobs: at once.
        config: of the job.
        gpus: that are there.
    """
    each = devices_of(config)
    cores = max(1, _cores() // n_jobs // (max(1, each or 1) if on_cpu(config) or not gpus else 1))
    variables = {name: str(cores) for name in THREADS if name not in os.environ}
    if gpus and not on_cpu(config):
        each = each or gpus // n_jobs
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(_visible(gpus)[place * each : (place + 1) * each])
    return variables


def gpus_here() -> int:
    """How many GPUs there are to share out; torch is imported for it."""
    import torch

    return torch.cuda.device_count()


def devices_of(config: Mapping[str, Any]) -> int | None:
    """How many devices a job's trainer names; None where it takes what there is."""
    devices = (config.get("trainer") or {}).get("devices")
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str) and devices != "auto":
        named = [part for part in devices.split(",") if part.strip()]
        return len(named) if "," in devices else int(devices) if devices.isdecimal() else None
    return devices if isinstance(devices, int) and devices > 0 else None


def _visible(gpus: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:gpus] if named else [str(number) for number in range(gpus)]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
