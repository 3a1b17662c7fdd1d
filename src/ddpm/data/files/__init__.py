"""The files of a set, wherever they lie: in a folder, an archive or a bucket."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from ddpm.data.pixels.decoding import Encoded


class Files(Protocol):
    """Files that are listed, and read one by one.

    Attributes:
        names: of N files that are not hidden, as paths with `/` between folders, in an order in which it is
            cheap to read them.
        folders: paths of the folders that they lie in, and of those without any.
        refused: numbers of files that are never read, with the reason.
        states: of the N files, each another whenever its contents may be; None where this is not known.
    """

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def folders(self) -> Sequence[str]: ...

    @property
    def refused(self) -> Mapping[int, str]: ...

    @property
    def states(self) -> Sequence[str] | None: ...

    def read(self, indices: Iterable[int]) -> Iterator[Encoded | str]:
        """Some files, by their numbers: each as its path or its contents; or why it cannot be read, as a
        string.
        """
        ...

    def shown(self, name: str) -> str:
        """The name of a file or folder as people find it."""
        ...


def contents(files: Files, index: int) -> bytes:
    """What is in a file.

    Raises:
        OSError: where it cannot be read.
    """
    found = next(files.read([index]))
    if isinstance(found, str):
        raise OSError(found)
    return found if isinstance(found, bytes) else found.read_bytes()


def is_visible(name: str) -> bool:
    """Whether neither a file nor a folder that it lies in is hidden."""
    return not any(part.startswith(".") and part != ".." for part in name.split("/"))


def folders_of(names: Sequence[str]) -> set[str]:
    """Every folder that some files lie in."""
    found: set[str] = set()
    for name in names:
        folder = name.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found
