"""Reading checkpoints in parts: whole, or the rows that one process is to hold."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.training.checkpoints.archive import RefusedFileError, fingerprint
from ddpm.training.checkpoints.guarded import guarded_load
from ddpm.training.checkpoints.layout import mapped_by_name
from ddpm.training.checkpoints.parts.listing import DIRECTORY, KEY, Parts, first_not_finite, rows


def assembled(head: dict[str, Any], parts: Parts, directory: Path) -> dict[str, Any]:
    """A whole checkpoint: twice its size of memory for a moment.

    Args:
        head: as it was read.
        parts: that it lists.
        directory: that the head lies in.

    Raises:
        RefusedFileError: where a part is missing, damaged, or of another checkpoint.
    """
    read = [_read(directory, parts, rank) for rank in range(len(parts.files))]
    content = filled(head, parts, lambda name, _: torch.cat([part.pop(name) for part in read]))
    del content[KEY]
    return content


def check(parts: Parts, directory: Path) -> None:
    """Read every part, one after another, and keep none.

    Raises:
        RefusedFileError: where a part is missing, damaged, not finite, or of another checkpoint.
    """
    for rank in range(len(parts.files)):
        if (name := first_not_finite(_read(directory, parts, rank))) is not None:
            raise RefusedFileError(f"{name} holds NaN or infinity")


def held_by(rank: int, ranks: int, parts: Parts, directory: Path) -> dict[str, Tensor]:
    """The rows of all tensors that a process is to hold, however many there are now, by name.

    Raises:
        RefusedFileError: where a part is missing, damaged, or of another checkpoint.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in parts.shapes}
    empty = {name for name, shape in parts.shapes.items() if not rows(rank, ranks, shape[0])}
    for other in range(len(parts.files)):
        wanted = {
            name: _within(rows(other, len(parts.files), shape[0]), rows(rank, ranks, shape[0]))
            for name, shape in parts.shapes.items()
        }
        if not any(wanted.values()) and (other or not empty):
            continue  # the first also says what a tensor is like of which this process is to hold no row
        part = _read(directory, parts, other)
        for name, indices in wanted.items():
            if indices or (not other and name in empty):
                found[name].append(part[name][indices.start : indices.stop].clone())
    return {name: torch.cat(pieces) for name, pieces in found.items()}


def _within(part: range, wanted: range) -> range:
    """Which rows of a part are wanted, counted from its first."""
    first, end = max(part.start, wanted.start), min(part.stop, wanted.stop)
    return range(first - part.start, end - part.start) if end > first else range(0)


def filled(
    head: Mapping[str, Any], parts: Parts, tensor: Callable[[str, torch.Size], Tensor]
) -> dict[str, Any]:
    """A head with tensors in their places.

    Args:
        head: as it was read.
        parts: that it lists.
        tensor: of a name and the shape of the whole.
    """

    def put(name: str, there: Tensor) -> Tensor:
        return tensor(name, torch.Size(parts.shapes[name])) if name in parts.shapes else there

    return {key: mapped_by_name(value, put, str(key)) for key, value in head.items()}


def _read(directory: Path, parts: Parts, rank: int) -> dict[str, Tensor]:
    """The tensors of one part, by name."""
    name = parts.files[rank]
    path = directory / DIRECTORY / name
    if not path.is_file():
        raise RefusedFileError(f"{DIRECTORY}/{name}, a part of it, is not beside it")
    try:
        content = guarded_load(path)
        if fingerprint(path) != name.split(".")[-2]:
            raise RefusedFileError("it is of another checkpoint")
        match content:
            case {"part": int(part), "of": int(of), "tensors": dict() as tensors} if (
                part == rank and of == len(parts.files) and _are_rows(tensors, rank, parts)
            ):
                return tensors
        raise RefusedFileError("it is of another checkpoint")
    except (RefusedFileError, OSError) as error:
        raise RefusedFileError(f"{DIRECTORY}/{name}: {error}") from error


def _are_rows(tensors: Mapping[str, Any], rank: int, parts: Parts) -> bool:
    return tensors.keys() == parts.shapes.keys() and all(
        isinstance(tensors[name], Tensor)
        and tensors[name].dtype == parts.dtypes[name]
        and tensors[name].shape == (len(rows(rank, len(parts.files), shape[0])), *shape[1:])
        for name, shape in parts.shapes.items()
    )
