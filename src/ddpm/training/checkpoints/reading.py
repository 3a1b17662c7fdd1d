"""Checkpoints that are whole or not there: written beside their place, flushed, then renamed."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

log = logging.getLogger(__name__)

LAST = "last.ckpt"


def at_step(step: int) -> str:
    """The name of the checkpoint that a run writes at a step."""
    return f"step_{step:08d}.ckpt"


def numbered(directory: Path) -> dict[int, Path]:
    """The checkpoints in a directory that a run wrote by itself, by step. Others, such as copies under names
    of a person's own, are not among them.
    """
    found = {path: re.fullmatch(r"step_(\d{8,})\.ckpt", path.name) for path in directory.glob("step_*.ckpt")}
    return {int(match[1]): path for path, match in found.items() if match}


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
    if not isinstance(checkpoint, Mapping) or not {"state_dict", "config"} <= checkpoint.keys():
        raise CheckpointError(f"{key}={path}: is not a checkpoint of this project (no network and config)")
    return dict(checkpoint)


def averaged_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state of the network that samples are drawn with: the average of its parameters, where the run kept
    one, and all else as it was.
    """
    network = {
        name.removeprefix("network."): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith("network.")
    }
    return network | dict(checkpoint.get("ema", {}).get("parameters", {}))


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
    path = Path(os.path.expanduser(path)).absolute()
    if path.is_file():
        return path, load(path, key)
    if not path.is_dir():
        raise CheckpointError(f"{key}={path}: there is no such run directory or checkpoint file")
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    candidates = [file for file in [directory / LAST] if file.exists()]
    candidates += [checkpoint for _, checkpoint in sorted(numbered(directory).items(), reverse=True)]
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
