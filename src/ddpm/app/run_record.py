"""run.json and config.yaml: what a run was, for whoever finds its directory later."""

import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from ddpm import __version__
from ddpm.app.continuing import Resume, chosen, logged_before
from ddpm.app.left_run import LAYOUT, RECORD, logged_offline
from ddpm.app.lock import Lock
from ddpm.app.run_configuration import OWN
from ddpm.app.run_directory import Place
from ddpm.runtime import writing
from ddpm.runtime.computing import Computing
from ddpm.training.loggers import WandbLogger
from ddpm.training.loggers.wandb_files import first_step, is_whole, mend
from ddpm.training.module import DDPM

PACKAGES = ("torch", "lightning", "hydra-core", "numpy")


class RunRecord:
    """Writes `run.json` when the run begins, and again when it ends in whatever way.

    Every start of the run has a row in it, so that the last one tells of those before.

    Args:
        directory: of the run.
        known: what can be said at the beginning, plain containers.
        step: that this start goes on from.
        left: what the start before wrote, of a run that goes on.
        lock: on the directory; nothing is written once it is lost.
    """

    def __init__(
        self,
        directory: Path,
        known: dict[str, Any],
        *,
        step: int = 0,
        left: Mapping[str, Any] | None = None,
        lock: Lock | None = None,
    ):
        self._lock = lock
        self.path = directory / RECORD
        self._begun = time.monotonic()
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        earlier = _starts(left, lock.last_sign if lock else None) if left else []
        self._before = sum(start.get("seconds") or 0.0 for start in earlier)
        self.values: dict[str, Any] = {
            "layout": LAYOUT,
            "status": "running",
            "started": (earlier[0].get("started") if earlier else None) or now,
            "working_directory": str(Path.cwd()),
            "host": platform.node(),
            "python": platform.python_version(),
            "versions": {"ddpm": __version__, **{name: version(name) for name in PACKAGES}},
            "git": git_commit(),
            **known,
            **({"rollbacks": list(left["rollbacks"])} if left and left.get("rollbacks") else {}),
            "starts": [
                *earlier,
                {
                    "started": now,
                    "host": platform.node(),
                    "pid": os.getpid(),
                    "step": step,
                    "status": "running",
                },
            ],
        }
        self._write()

    def add(self, **known: Any) -> None:
        """Record what is known by now."""
        self.values |= known
        self._write()

    def end(self, status: str, **known: Any) -> None:
        """Record how the run ended: "finished", "pruned", "interrupted" or "failed", and what is known
        by then.
        """
        seconds = time.monotonic() - self._begun
        self.values["starts"][-1] |= {
            "status": status,
            "why": known.get("why"),
            "ended_at_step": known.get("step"),
            "seconds": round(seconds, 2),
        }
        self.add(status=status, wall_seconds=round(self._before + seconds, 2), **known)

    def end_offline(self, loggers: Sequence[Logger]) -> None:
        """Record where W&B's part was logged to while offline, by this start and by those before it, whose
        files are made to fit. In another run's directory nothing is touched: it may be running.
        """
        directory, found = self.path.parent, _synced(loggers)
        goes_on = next((logger.first_step for logger in loggers if isinstance(logger, WandbLogger)), None)
        for path in reversed([path for path in logged_offline(directory, self.values) if path not in found]):
            with suppress(OSError):
                if path.is_relative_to(directory):
                    mend(path, goes_on)
                if (step := first_step(path)) is not None and is_whole(path):
                    found.insert(0, path)
                    goes_on = step
        self.add(wandb_offline=_kept(directory, found))

    def add_rollback(self, **known: Any) -> None:
        """Record that the run has gone back to a checkpoint, where and why."""
        self.values.setdefault("rollbacks", []).append(known)
        self._write()

    def _write(self) -> None:
        if self._lock is None or not self._lock.is_lost():
            writing.write(self.path, writing.readable_json(without_nan(self.values)))


def _starts(left: Mapping[str, Any], last_sign: float | None) -> list[dict[str, Any]]:
    """The starts of a run before this one. One that did not say how it ended was killed."""
    before = {"started": left.get("started"), "host": left.get("host"), "step": 0, "status": left["status"]}
    starts = [dict(start) for start in left.get("starts") or ()]
    starts = starts or [{**before, "seconds": left.get("wall_seconds")}]  # of an earlier layout
    if (last := starts[-1]).get("status", "running") == "running":
        last["status"] = "killed"
        if last_sign is not None and last.get("started"):
            until = min(last_sign, time.time())  # a clock may have been set back
            last["seconds"] = round(max(0.0, until - datetime.fromisoformat(last["started"]).timestamp()), 2)
    return starts


def _synced(loggers: Sequence[Logger]) -> list[Path]:
    """The directories that W&B's part of a start is logged to while offline."""
    found = (path for logger in loggers if isinstance(logger, WandbLogger) for path in logger.sync_dirs)
    return [path.absolute() for path in found]


def logged_to(directory: Path, before: Sequence[Path], loggers: Sequence[Logger]) -> list[str]:
    """The same with those of the starts before, as the record keeps them: one a start, and one more each time
    that W&B failed.
    """
    return _kept(directory, list(dict.fromkeys([*before, *_synced(loggers)])))


def _kept(directory: Path, paths: Sequence[Path]) -> list[str]:
    """Paths as the record keeps them: relative where they are in the run's directory, which may be moved."""
    return [str(path.relative_to(directory) if path.is_relative_to(directory) else path) for path in paths]


def known(
    trainer: Trainer,
    module: DDPM,
    place: Place,
    resume: Resume | None,
    computing: Computing,
    loggers: Sequence[Logger] = (),
) -> dict[str, Any]:
    """What `run.json` says from the beginning."""
    device = trainer.strategy.root_device
    wandb_id, offline = logged_before(resume, place.left)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "command": list(place.command),
        "choices": chosen(place, resume),
        "parameters": module.num_parameters,
        "data": module.data,
        "devices": {"kind": name, "number": trainer.world_size, "nodes": trainer.num_nodes},
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        **asdict(computing),
        "continued_from": str(resume.path) if resume else None,
        "overrides": list(place.overrides),
        "wandb_id": next((logger.run_id for logger in loggers if isinstance(logger, WandbLogger)), wandb_id),
        "wandb_offline": logged_to(place.directory, offline, loggers),
    }


def write_config(directory: Path, config: dict[str, Any]) -> None:
    """Write config.yaml, from which the run goes on or is repeated."""
    head = (
        "# python train.py ckpt=THIS_DIRECTORY  goes on with this run\n"
        "# python train.py --config-dir THIS_DIRECTORY --config-name config  runs the same again\n"
    )
    values = {name: value for name, value in config.items() if name != "allow_targets"}
    body = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    writing.write(directory / OWN, head + body)


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
