"""Checkpoints in parts: each process of a sharded training writes what it holds, and none holds the whole.

The file of the checkpoint is its head: all that every process has, and which files beside it, in `parts/`,
hold the rest, by names that their contents give. It is written when they are, so its name always means a
whole checkpoint, and other names of it are of the same one. Tensors are parted along their first dimension,
as FSDP2 does it: `rows` says how.
"""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import Store

from ddpm.training.checkpoints.archive import RefusedFileError, fingerprint
from ddpm.training.checkpoints.guarded import guarded_load, outlined
from ddpm.training.checkpoints.layout import COMPUTED, CheckpointError, is_finite, mapped_by_name, tensors_in
from ddpm.training.checkpoints.names import being_written
from ddpm.training.checkpoints.whole_files import link, move, save

DIRECTORY = "parts"
"""Where the parts lie, beside the heads."""

KEY = "parts"
"""What a head says of its parts."""

NAME = re.compile(r"[A-Za-z0-9_=+,@-]{1,100}\.[0-9a-f]{16}\.ckpt")
"""Of the file of a part: that of the checkpoint, in these letters, and a fingerprint of the contents."""

MAX_PARTS = 100_000

PAUSE = 0.02
"""Seconds between two looks at whether a process has said something."""

UNSEEN = 30.0
"""Seconds until the file of another machine must be seen; network file systems look now and then."""


class Parts(NamedTuple):
    """What a head says of its parts.

    Attributes:
        files: in `parts/`, in the order of the processes that wrote them.
        shapes: of whole tensors, by their dotted names in the checkpoint.
        dtypes: of them.
    """

    files: Sequence[str]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, torch.dtype]


def rows(part: int, of: int, n: int) -> range:
    """Which of n rows are in a part, the others of which are as large, but for the last ones."""
    size = -(-n // of)
    return range(min(part * size, n), min((part + 1) * size, n))


# Writing


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
    if (name := _first_not_finite(part)) is not None:
        raise CheckpointError(
            f"{name} holds NaN or infinity, so {checkpoint.name} is not written (training goes on from the "
            "checkpoint before)"
        )
    directory = checkpoint.parent / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    # two processes may hold the same, as nothing at all
    stem = _stem(checkpoint.stem)
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


def _stem(name: str) -> str:
    """What the names of the parts of a checkpoint begin with."""
    return re.sub(r"[^A-Za-z0-9_=+,@-]", "_", name)[:100]


def _packed(tensor: Tensor) -> Tensor:
    """A tensor whose memory is its own: a part of a larger one would be written with all of that."""
    return tensor if tensor.nbytes == tensor.untyped_storage().nbytes() else tensor.clone()


def _first_not_finite(part: Mapping[str, Tensor]) -> str | None:
    return next(
        (
            name
            for name, tensor in part.items()
            if name.partition(".")[0] in COMPUTED and not is_finite(tensor)
        ),
        None,
    )


# Reading


def listed(head: Any) -> Parts | None:
    """What a checkpoint says of its parts; None for one that is whole.

    Args:
        head: as it was read.

    Raises:
        RefusedFileError: where that is no list of parts, or not of this head.
    """
    if not isinstance(head, Mapping) or KEY not in head:
        return None
    files, shapes = _checked(head[KEY])
    dtypes: dict[str, torch.dtype] = {}
    for key, value in head.items():
        for name, tensor in tensors_in(value, str(key)):
            if name in dtypes and name in shapes:
                raise RefusedFileError(f"two tensors are called {name[:80]}")
            dtypes[name] = tensor.dtype
    if missing := shapes.keys() - dtypes.keys():
        raise RefusedFileError(f"it has no place for {min(missing)[:80]}")
    return Parts(files, shapes, dtypes)


def _checked(listing: Any) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """Files and shapes of a list of parts."""
    match listing:
        case {"files": list() as files, "shapes": dict() as shapes} if (
            0 < len(files) <= MAX_PARTS
            and all(type(name) is str and NAME.fullmatch(name) for name in files)
            and all(type(name) is str and _is_shape(shape) for name, shape in shapes.items())
        ):
            return files, {name: tuple(shape) for name, shape in shapes.items()}
    raise RefusedFileError("its list of parts is damaged")


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


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
        if (name := _first_not_finite(_read(directory, parts, rank))) is not None:
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


# Removing


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint with those of its parts that no other beside it lists."""
    own = files_of(checkpoint)
    checkpoint.unlink(missing_ok=True)
    remove_files(checkpoint.parent, own)


def files_of(checkpoint: Path) -> Sequence[str]:
    """The parts that a file lists; nothing where it is no head, or cannot be read."""
    try:
        return _listed_in(checkpoint)
    except (RefusedFileError, OSError):
        return []


def remove_files(directory: Path, files: Collection[str]) -> None:
    """Remove those parts that no checkpoint in a directory lists."""
    if not files:
        return
    needed = {name for head in _heads(directory) for name in files_of(head)}
    for name in set(files) - needed:
        (directory / DIRECTORY / name).unlink(missing_ok=True)


def unlisted(directory: Path) -> list[Path]:
    """The parts in the directory of checkpoints that none of them lists, as saving that was killed leaves
    them; but for those that have the name of one that cannot be read, which may be read another time.
    """
    there = [path for path in _iterated(directory / DIRECTORY) if NAME.fullmatch(path.name)]
    needed: set[str] = set()
    unread: list[str] = []
    for head in _heads(directory) if there else ():
        try:
            needed.update(_listed_in(head))
        except (RefusedFileError, OSError):
            unread.append(f"{_stem(head.name.partition('.ckpt')[0])}.")
    return [path for path in there if path.name not in needed and not path.name.startswith(tuple(unread))]


def bring(checkpoint: Path, directory: Path) -> None:
    """Put the parts of a checkpoint into another directory of checkpoints too, for a head there.

    Raises:
        OSError: where one cannot be put there.
    """
    for name in files_of(checkpoint):
        (directory / DIRECTORY).mkdir(parents=True, exist_ok=True)
        link(checkpoint.resolve().parent / DIRECTORY / name, directory / DIRECTORY / name)


def _listed_in(checkpoint: Path) -> Sequence[str]:
    state = checkpoint.stat()
    return _read_list(checkpoint, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)  # all are asked for whenever one is removed
def _read_list(checkpoint: Path, *state: int) -> Sequence[str]:
    content = outlined(checkpoint)
    return _checked(content[KEY])[0] if isinstance(content, Mapping) and KEY in content else []


def _heads(directory: Path) -> Iterator[Path]:
    """All that may be one: a run names those that it passes over otherwise, and a person as they like."""
    return (path for path in _iterated(directory) if path.is_file() and not path.name.endswith(".part"))


def _iterated(directory: Path) -> Iterator[Path]:
    return directory.iterdir() if directory.is_dir() else iter(())
