"""Removing parts: those of a checkpoint that goes, and those that no checkpoint lists."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ddpm.training.checkpoints.archive import RefusedFileError
from ddpm.training.checkpoints.guarded import outlined
from ddpm.training.checkpoints.parts.listing import DIRECTORY, KEY, NAME, files_and_shapes, stem_of
from ddpm.training.checkpoints.whole_files import link


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
            unread.append(f"{stem_of(head.name.partition('.ckpt')[0])}.")
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
    return files_and_shapes(content[KEY])[0] if isinstance(content, Mapping) and KEY in content else []


def _heads(directory: Path) -> Iterator[Path]:
    """All that may be one: a run names those that it passes over otherwise, and a person as they like."""
    return (path for path in _iterated(directory) if path.is_file() and not path.name.endswith(".part"))


def _iterated(directory: Path) -> Iterator[Path]:
    return directory.iterdir() if directory.is_dir() else iter(())
