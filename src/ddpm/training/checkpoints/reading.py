"""Reading checkpoints: damaged, hostile and foreign files are refused, and the one before is taken."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.training.checkpoints import parts
from ddpm.training.checkpoints.archive import RefusedFileError
from ddpm.training.checkpoints.guarded import guarded_load
from ddpm.training.checkpoints.layout import CheckpointError, check
from ddpm.training.checkpoints.names import LAST, numbered

log = logging.getLogger(__name__)


def load(path: Path, key: str = "ckpt", *, whole: bool = True) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, running no code from it.

    Args:
        path: of the file.
        key: where the user named it, for messages.
        whole: also of one that is in parts. Otherwise those are read, to check them, and left out.

    Raises:
        CheckpointError: where the file is missing, damaged, of a newer version, no checkpoint of this
            project, or holds NaN or infinity in what a network is computed with or trained by.
    """
    if not path.is_file():
        raise CheckpointError(f"{key}={path}: there is no such file")
    try:
        content = guarded_load(path)
        if (listed := parts.listed(content)) is not None:
            if whole:
                content = parts.assembled(content, listed, path.resolve().parent)
            else:
                parts.check(listed, path.resolve().parent)
    except (RefusedFileError, OSError) as error:
        raise _unreadable(path, key, error) from error
    try:
        return check(content)
    except CheckpointError as error:
        raise CheckpointError(f"{key}={path}: {error}") from error


def load_rows(
    path: Path, rank: int, ranks: int, placed: Callable[[Tensor, torch.Size], Tensor]
) -> dict[str, Any]:
    """Read what one process of a sharded training is to hold of a checkpoint that has been found whole, onto
    the CPU. One that is not in parts is read whole.

    Args:
        path: of the file.
        rank: of this process.
        ranks: how many there are, now.
        placed: makes its rows of a tensor, and the shape of the whole, into what takes their place.

    Raises:
        CheckpointError: as `load`.
    """
    try:
        head = guarded_load(path) if path.is_file() else None
        if (listed := parts.listed(head)) is None or head is None:
            return load(path)
        own = parts.held_by(rank, ranks, listed, path.resolve().parent)
        content = parts.filled(head, listed, lambda name, shape: placed(own.pop(name), shape))
    except (RefusedFileError, OSError) as error:
        raise _unreadable(path, "ckpt", error) from error
    del content[parts.KEY]
    return content


def _unreadable(path: Path, key: str, error: Exception) -> CheckpointError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return CheckpointError(f"{key}={path}: cannot be read, {reason}")


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


def find(path: Path, key: str = "ckpt", *, whole: bool = True) -> tuple[Path, dict[str, Any]]:
    """The newest whole checkpoint of a run directory, or the given file.

    A run directory whose newest checkpoint cannot be used gives the one before it, and says so.

    Args:
        path: a checkpoint file, a run directory, or its `checkpoints` directory.
        key: where the user named it, for messages.
        whole: as `load` takes it.

    Returns:
        The file's path and its content.

    Raises:
        CheckpointError: where there is none that can be used.
    """
    path = Path(os.path.expanduser(path)).absolute()
    if path.is_file():
        return path, load(path, key, whole=whole)
    if not path.is_dir():
        raise CheckpointError(f"{key}={path}: there is no such run directory or checkpoint file")
    directory = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    candidates = _newest_first(directory)
    if not candidates:
        raise CheckpointError(f"{key}={path}: holds no checkpoint; give a run directory or a .ckpt file")
    failures: list[CheckpointError] = []
    refused: list[Path] = []
    for candidate in candidates:
        if any(_are_one(candidate, other) for other in refused):
            continue
        try:
            checkpoint = load(candidate, key, whole=whole)
        except CheckpointError as error:
            failures.append(error)
            refused.append(candidate)
            log.warning("%s", error)
            continue
        if failures:
            log.warning("falling back to %s, step %d", candidate, checkpoint["global_step"])
        return candidate, checkpoint
    raise CheckpointError(
        f"{failures[0]}; no checkpoint in {directory} can be used: bring back a copy, or move them away to "
        "begin anew"
    )


def _newest_first(directory: Path) -> list[Path]:
    """The checkpoints that a run wrote. Where `last.ckpt` is another name of one it takes its place: a run
    that was killed between a checkpoint and its other name has a newer one than that.
    """
    by_step = [path for _, path in sorted(numbered(directory).items(), reverse=True)]
    last = directory / LAST
    if last.exists():
        twin = next((i for i, path in enumerate(by_step) if _are_one(path, last)), 0)
        by_step.insert(twin, last)
    return by_step


def _are_one(path: Path, other: Path) -> bool:
    """Whether two names are of one file, or of a copy that was made as the run went."""
    one, two = path.stat(), other.stat()
    return os.path.samestat(one, two) or (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)
