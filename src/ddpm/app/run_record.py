"""run.json and config.yaml: what a run was, for whoever finds its directory later."""

import json
import math
import platform
import subprocess
import time
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer

from ddpm import __version__
from ddpm.app.continuing import Resume
from ddpm.app.run_directory import Place
from ddpm.runtime import writing
from ddpm.runtime.computing import Computing
from ddpm.training.module import DDPM

PACKAGES = ("torch", "lightning", "hydra-core", "numpy")


class RunRecord:
    """Writes `run.json` when the run begins, and again when it ends in whatever way.

    Args:
        directory: of the run.
        known: what can be said at the beginning, plain containers.
    """

    def __init__(self, directory: Path, known: dict[str, Any]):
        self.path = directory / "run.json"
        self._start = time.monotonic()
        self.values: dict[str, Any] = {
            "status": "running",
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "working_directory": str(Path.cwd()),
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {"ddpm": __version__, **{name: version(name) for name in PACKAGES}},
            "git": git_commit(),
            **known,
        }
        self._write()

    def end(self, status: str, **known: Any) -> None:
        """Record how the run ended: "finished", "interrupted" or "failed", and what is known by then."""
        self.values |= {"status": status, "wall_seconds": round(time.monotonic() - self._start, 2), **known}
        self._write()

    def add_rollback(self, **known: Any) -> None:
        """Record that the run has gone back to a checkpoint, where and why."""
        self.values.setdefault("rollbacks", []).append(known)
        self._write()

    def _write(self) -> None:
        writing.write(self.path, json.dumps(without_nan(self.values), indent=2) + "\n")


def known(
    trainer: Trainer, module: DDPM, place: Place, resume: Resume | None, computing: Computing
) -> dict[str, Any]:
    """What `run.json` says from the beginning."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "command": list(place.command),
        "choices": dict(place.choices),
        "parameters": module.num_parameters,
        "data": module.data,
        "devices": {"kind": name, "number": trainer.world_size, "nodes": trainer.num_nodes},
        **asdict(computing),
        "continued_from": str(resume.path) if resume else None,
        "overrides": list(place.overrides),
    }


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write config.yaml, from which the run goes on or is repeated."""
    head = (
        "# python train.py ckpt=THIS_DIRECTORY  goes on with this run\n"
        "# python train.py --config-dir THIS_DIRECTORY --config-name config  runs the same again\n"
    )
    values = {name: value for name, value in config.items() if name != "allow_targets"}
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    writing.write(directory / "config.yaml", head + body)


def git_commit() -> dict[str, Any] | None:
    """The commit of the code that runs, and whether it has changes; None where it is no checkout."""
    root = Path(__file__).parents[3]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return None
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null stands for them."""
    if isinstance(value, dict):
        return {key: without_nan(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
