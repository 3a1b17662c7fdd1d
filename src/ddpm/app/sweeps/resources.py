"""What a job of a sweep takes of a cluster: nodes, tasks and GPUs, by the trainer that it has."""

import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddpm.app.sweeps import shares
from ddpm.app.sweeps.cluster import LOCAL, SLURM
from ddpm.errors import UsageError

KEY = "hydra.launcher"
GPUS = ("gpus_per_node", "gpus_per_task", "gres")
"""Settings that say which GPUs a job gets."""


@dataclass(frozen=True)
class Needs:
    """Of one job.

    Attributes:
        nodes: that it runs on.
        tasks_per_node: processes on each.
        gpus_per_node: that SLURM is asked for; None for none, or where another setting asks.
        overrides: that tell the trainer what it could not know here.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int | None = None
    overrides: tuple[str, ...] = ()


def needed(settings: Mapping[str, Any], config: Mapping[str, Any]) -> Needs:
    """What a job takes.

    Args:
        settings: of the launcher.
        config: of the job.

    Raises:
        UsageError: where the launcher was told something else than the trainer.
    """
    trainer = config.get("trainer") or {}
    accelerator = str(trainer.get("accelerator", "auto"))
    nodes = _agreed("nodes", settings, "trainer.num_nodes", int(trainer.get("num_nodes") or 1))
    devices = shares.devices_of(config) if "devices" in trainer else 1
    overrides: tuple[str, ...] = ()
    on_gpus = accelerator != "cpu" and not (settings["cluster"] == LOCAL and not _gpus_here(accelerator))
    if devices is None:  # what there is: here, or there?
        devices = settings.get("tasks_per_node") or settings.get("gpus_per_node") or 1
        overrides = (f"trainer.devices={devices}",)
    tasks = _agreed("tasks_per_node", settings, "trainer.devices", devices)
    gpus = settings.get("gpus_per_node")
    if gpus is not None and gpus != devices and on_gpus:
        _agreed("gpus_per_node", settings, "trainer.devices", devices)
    if gpus and accelerator == "cpu":
        raise UsageError(
            f"{KEY}.gpus_per_node={gpus}: and trainer.accelerator=cpu, which uses none; leave one out"
        )
    if on_gpus and not any(settings.get(name) is not None for name in GPUS):
        gpus = devices
    return Needs(nodes, tasks, gpus, overrides)


def check(settings: Mapping[str, Any], configs: Sequence[Mapping[str, Any]], *, is_basic: bool) -> None:
    """Refuse what cannot be queued.

    Args:
        settings: of the launcher.
        configs: of the jobs.
        is_basic: whether the jobs are known before the first one ends.

    Raises:
        UsageError: naming the key, or the extra to install.
    """
    if (cluster := settings.get("cluster")) not in (SLURM, LOCAL):
        raise UsageError(f"{KEY}.cluster={cluster}: must be {SLURM} or {LOCAL}")
    if importlib.util.find_spec("submitit") is None:
        raise UsageError(
            "hydra/launcher=slurm: needs submitit; install the extra slurm, pip install -e '.[slurm]'"
        )
    lacking = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if cluster == SLURM and lacking:
        raise UsageError(
            f"hydra/launcher=slurm: {lacking[0]} is not found, so nothing can be queued from here; start it "
            f"where SLURM is, try it out on this machine by {KEY}.cluster={LOCAL}, or leave out "
            "hydra/launcher=slurm"
        )
    if not settings.get("wait") and not is_basic:
        raise UsageError(
            f"{KEY}.wait=false: this sweeper chooses jobs by what came out of others; leave it out"
        )
    for name in ("timeout_min", "array_parallelism", "nodes", "tasks_per_node", "cpus_per_task"):
        if (value := settings.get(name)) is not None and value < 1:
            raise UsageError(f"{KEY}.{name}={value}: must be at least 1")
    delay, limit = settings.get("signal_delay_s"), settings.get("timeout_min")
    if isinstance(delay, int) and isinstance(limit, int) and not 0 < delay < 60 * limit:
        raise UsageError(
            f"{KEY}.signal_delay_s={delay}: must lie within the job's time, {KEY}.timeout_min={limit}"
        )
    for config in configs:
        needs = needed(settings, config)
        if cluster == LOCAL and needs.nodes > 1:
            raise UsageError(f"trainer.num_nodes={needs.nodes}: {KEY}.cluster={LOCAL} is one machine")
        if cluster == LOCAL and (needs.gpus_per_node or 0) > (there := shares.gpus_here()):
            raise UsageError(
                f"trainer.devices={needs.gpus_per_node}: there are {there} GPUs here; ask for fewer, or "
                "trainer.accelerator=cpu"
            )


def _agreed(name: str, settings: Mapping[str, Any], key: str, value: int) -> int:
    if (told := settings.get(name)) is not None and told != value:
        raise UsageError(
            f"{KEY}.{name}={told}: and {key}={value}; leave {KEY}.{name} out, it follows from {key}"
        )
    return value


def _gpus_here(accelerator: str) -> int:
    return 1 if accelerator in ("gpu", "cuda") else shares.gpus_here()
