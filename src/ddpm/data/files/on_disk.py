"""The files of a folder on this machine's disks."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from ddpm.data.paths import files_below
from ddpm.data.pixels.decoding import Encoded


class FolderFiles:
    """Every file below a folder, through links too, in the order of their names."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.folders: list[str] = []
        self.files = sorted(files_below(folder, self.folders))
        self.names = [name for name, _, _ in self.files]
        self.refused: dict[int, str] = {}
        self.states = [f"{size} {changed}" for _, size, changed in self.files]

    def read(self, indices: Iterable[int]) -> Iterator[Encoded | str]:
        """The paths of files."""
        return (self.folder / self.names[index] for index in indices)

    def shown(self, name: str) -> str:
        """Its path."""
        return str(self.folder / name)
