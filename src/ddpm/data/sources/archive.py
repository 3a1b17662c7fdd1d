"""Images in a zip or tar file, which is never unpacked."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ddpm.data.files.archived import ArchiveFiles
from ddpm.data.files.bucket import open_url
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_file, is_url
from ddpm.data.prepared import cache
from ddpm.data.prepared.cache import FileState
from ddpm.data.prepared.preparation import Found, prepared
from ddpm.data.sources.image_files import BETWEEN, ImageFiles


@dataclass(frozen=True)
class Archive(ImageFiles):
    """All images of a zip or tar file, compressed or not, as `Folder` would find them after unpacking.

    Nothing is unpacked to disk: members are read one after the other.

    Args:
        path: the file, or its URL; `~` is the home directory.
        The others: see `ImageFiles`.

    Raises:
        ValueError: from `read`, where there is no such file, it is damaged, there is no image in it, or it is
            not what is asked for.
    """

    def read(self) -> DataSet:
        with ExitStack() as stack:
            where, file, state = self._open(stack)
            others = stack.enter_context(self._others())

            def find(_: Path) -> Found:
                return self._found(ArchiveFiles(str(self.path), file, stack), others)

            identity = {"archive": where, **self._chosen}
            states = [state, *(() if others is None else (BETWEEN, *others.states))]
            return prepared(self, Path(where).stem, identity, states, find)

    def _open(self, stack: ExitStack) -> tuple[str, IO[bytes], FileState]:
        if is_url(self.path):
            opened, state = open_url(str(self.path))
            return str(self.path), stack.enter_context(opened), state
        file = existing_file(self.path).resolve()
        return str(file), stack.enter_context(file.open("rb")), cache.state(file)
