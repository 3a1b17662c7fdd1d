"""Checkpoints that are whole or not there: written beside their place, flushed, then renamed."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

log = logging.getLogger(__name__)

LAST = "last.ckpt"


class CheckpointError(ValueError):
    """A checkpoint is missing or cannot be read; says which and what would be right."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, made safe: whole files, and no code from them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.part")
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        return load(Path(path))


def load(path: Path, key: str = "ckpt") -> dict[str, Any]:
    """Read a checkpoint file onto the CPU, running no code from it.

    Raises:
        CheckpointError: where the file is missing, truncated, or no checkpoint of this project.
    """
    if not path.is_file():
        raise CheckpointError(f"{key}={path}: there is no such file")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(
            f"{key}={path}: cannot be read, it is truncated or no checkpoint ({reason})"
        ) from error
    if not isinstance(checkpoint, Mapping) or not {"state_dict", "ema", "config"} <= checkpoint.keys():
        raise CheckpointError(
            f"{key}={path}: is not a checkpoint of this project (no network, EMA and config)"
        )
    return dict(checkpoint)


def find(path: Path, key: str = "ckpt") -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint of a run directory, or the given file.

    A run directory whose newest checkpoint is damaged gives the one before it, and says so.

    Args:
        path: a checkpoint file, a run directory, or its `checkpoints` directory.
        key: where the user named it, for messages.

    Returns:
        The file's path and its content.

    Raises:
        CheckpointError: where there is none that can be read.
    """
    path = path.expanduser().absolute()
    if path.is_file():
        return path, load(path, key)
    if not path.is_dir():
        raise CheckpointError(f"{key}={path}: there is no such run directory or checkpoint file")
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    candidates = [file for file in [directory / LAST] if file.exists()]
    candidates += sorted(directory.glob("step_*.ckpt"), reverse=True)
    if not candidates:
        raise CheckpointError(f"{key}={path}: holds no checkpoint; give a run directory or a .ckpt file")
    failures = []
    for candidate in candidates:
        try:
            checkpoint = load(candidate, key)
        except CheckpointError as error:
            failures.append(error)
            log.warning("%s", error)
            continue
        if failures:
            log.warning("falling back to %s, step %d", candidate, checkpoint["global_step"])
        return candidate, checkpoint
    raise failures[0]


class Checkpoints(Callback):
    """Saves `checkpoints/step_XXXXXXXX.ckpt` as the run goes, and `last.ckpt`, which always is the newest.

    Args:
        every_n_steps: optimizer steps between checkpoints; the end of the run is saved in any case.
        keep: how many of the newest stay; None keeps all. Two or more, so that a damaged one has a
            predecessor.
        milestones_every_n_steps: checkpoints that stay forever; must be a multiple of `every_n_steps`.
    """

    def __init__(
        self, every_n_steps: int = 10_000, keep: int | None = 3, milestones_every_n_steps: int | None = None
    ):
        if every_n_steps < 1:
            raise ValueError(f"callbacks.checkpoints.every_n_steps={every_n_steps} must be at least 1")
        if keep is not None and keep < 2:
            raise ValueError(f"callbacks.checkpoints.keep={keep} must be at least 2, or null to keep all")
        if milestones_every_n_steps is not None and milestones_every_n_steps % every_n_steps:
            raise ValueError(
                f"callbacks.checkpoints.milestones_every_n_steps={milestones_every_n_steps} must be a "
                f"multiple of "
                f"every_n_steps={every_n_steps}"
            )
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.milestones_every_n_steps = milestones_every_n_steps
        self._saved_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        at_boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if at_boundary and trainer.global_step % self.every_n_steps == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save the run as it is now, unless this step is saved already. Every rank must call it."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step = step
        directory = Path(trainer.default_root_dir) / "checkpoints"
        path = directory / f"step_{step:08d}.ckpt"
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            _link(path, directory / LAST)
            self._prune(directory)

    def _prune(self, directory: Path) -> None:
        saved = sorted(directory.glob("step_*.ckpt"))
        for path in saved[: -self.keep] if self.keep else []:
            step = int(path.stem.removeprefix("step_"))
            if not self.milestones_every_n_steps or step % self.milestones_every_n_steps:
                path.unlink()


def _link(path: Path, name: Path) -> None:
    """Make `name` another name of the file, or a copy where the file system has no hard links."""
    temporary = name.with_name(f".{name.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        import shutil

        shutil.copyfile(path, temporary)
    os.replace(temporary, name)
