"""Writing a checkpoint in parts: each process its own, and the first the head, when it has heard of all."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributed import Store

from ddpm.training.checkpoints.archive import fingerprint
from ddpm.training.checkpoints.layout import CheckpointError, mapped_by_name
from ddpm.training.checkpoints.names import being_written
from ddpm.training.checkpoints.parts.listing import DIRECTORY, KEY, first_not_finite, stem_of
from ddpm.training.checkpoints.parts.removing import files_of, remove_files
from ddpm.training.checkpoints.whole_files import move, save

PAUSE = 0.02
"""Seconds between two looks at whether a process has said something."""

UNSEEN = 30.0
"""Seconds until the file of another machine must be seen; network file systems look now and then."""


def split(
    checkpoint: Mapping[str, Any], own: Callable[[Tensor], Tensor | None]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What all processes have of a checkpoint, and what this one alone has.

    Args:
        checkpoint: the state of a training.
        own: the rows of a tensor that this process holds; None for one that all of them have.

    Returns:
        The head, without the names of files; and this part, tensors by name.

    Raises:
        CheckpointError: where it holds what no checkpoint can.
    """
    part: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}

    def taken(name: str, tensor: Tensor) -> Tensor:
        if (held := own(tensor)) is None:
            return tensor
        if name in part:
            raise CheckpointError(
                f"two tensors are called {name}, which checkpoint=sharded cannot keep apart"
            )
        part[name], shapes[name] = held, list(tensor.shape)
        return held.new_empty(0)

    head = {key: mapped_by_name(value, taken, str(key)) for key, value in checkpoint.items()}
    return {**head, KEY: {"files": [], "shapes": shapes}}, part


def write_part(part: Mapping[str, Tensor], rank: int, ranks: int, checkpoint: Path) -> str:
    """Write the part of one process, flushed.

    Args:
        part: tensors by name.
        rank: of the process.
        ranks: how many there are.
        checkpoint: the head that will list it.

    Returns:
        The name of its file.

    Raises:
        CheckpointError: where it holds NaN or infinity.
        OSError: where it cannot be written; then nothing is left of it.
    """
    if (name := first_not_finite(part)) is not None:
        raise CheckpointError(
            f"{name} holds NaN or infinity, so {checkpoint.name} is not written (training goes on from the "
            "checkpoint before)"
        )
    directory = checkpoint.parent / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    # two processes may hold the same, as nothing at all
    stem = stem_of(checkpoint.stem)
    unnamed = being_written(directory / f"{stem}.{rank}.ckpt")
    written = save({"part": rank, "of": ranks, "tensors": {k: _packed(v) for k, v in part.items()}}, unnamed)
    file = directory / f"{stem}.{fingerprint(written)}.ckpt"
    move(written, file)
    return file.name


class Report(NamedTuple):
    """What a process says of its part: the name of its file, or why there is none.

    Attributes:
        file: that is written.
        error: why it could not be.
        unfit: why it must not be.
    """

    file: str | None = None
    error: str | None = None
    unfit: str | None = None


class Together:
    """The processes that write one checkpoint, each of which tells the first of its part. They may do so in
    threads: nothing here is a collective.

    Args:
        rank: of this process.
        ranks: how many there are.
        store: that they all reach, for this checkpoint alone; None for a single one.
        seconds: that the first waits for the others.
    """

    def __init__(self, rank: int, ranks: int, store: Store | None, seconds: float) -> None:
        self.rank, self.ranks, self._store, self._seconds = rank, ranks, store, seconds

    @property
    def leads(self) -> bool:
        """Whether this process writes the head."""
        return self.rank == 0

    def tell(self, report: Report) -> None:
        """Tell the first process."""
        assert self._store is not None
        self._store.set(str(self.rank), json.dumps(report))

    def heard(self, own: Report) -> list[Report]:
        """What all have said, in their order, when they have, or there is no more time.

        Args:
            own: of the first process.
        """
        deadline = time.monotonic() + self._seconds
        return [own, *(self._heard_of(rank, deadline) for rank in range(1, self.ranks))]

    def _heard_of(self, rank: int, deadline: float) -> Report:
        assert self._store is not None
        key = str(rank)
        while not self._store.check([key]):  # `wait` would keep the store from all other threads
            if time.monotonic() > deadline:
                return Report(error="it has not said that its part is written")
            time.sleep(PAUSE)
        report = Report(*json.loads(self._store.get(key)))
        self._store.delete_key(key)
        return report


def conclude(
    head: dict[str, Any], reports: Sequence[Report], path: Path, write: Callable[[dict[str, Any], Path], None]
) -> None:
    """Write the head of a checkpoint whose parts are written, in place of one that has its name.

    Args:
        head: what all processes have.
        reports: of all of them, in order.
        path: of the head.
        write: writes it.

    Raises:
        CheckpointError: where a part must not be written.
        OSError: where one could not be, or is not seen from here, or the head cannot; then the parts are
            removed.
    """
    files = [report.file for report in reports if report.file is not None]
    before = files_of(path)
    try:
        for rank, report in enumerate(reports):
            if report.unfit is not None:
                raise CheckpointError(report.unfit)
            if report.error is not None:
                raise OSError(f"rank {rank}: {report.error}")
        _wait_until_seen(path.parent / DIRECTORY, files)
        write({**head, KEY: {**head[KEY], "files": files}}, path)
    except BaseException:
        remove_files(path.parent, files)
        raise
    remove_files(path.parent, set(before) - set(files))


def _wait_until_seen(directory: Path, files: Sequence[str]) -> None:
    deadline = time.monotonic() + UNSEEN
    while unseen := [rank for rank, name in enumerate(files) if not (directory / name).is_file()]:
        if time.monotonic() > deadline:
            raise OSError(
                f"the part of rank {unseen[0]} is not in {directory}: checkpoint=sharded needs a run "
                "directory that every machine sees; use checkpoint=whole, or name another one"
            )
        time.sleep(PAUSE)


def _packed(tensor: Tensor) -> Tensor:
    """A tensor whose memory is its own: a part of a larger one would be written with all of that."""
    return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()
