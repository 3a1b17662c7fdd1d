"""Images in a zip or tar file, which is never unpacked."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ddpm.data import cache
from ddpm.data.decoding import short
from ddpm.data.files.archived import ArchiveFiles
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_file
from ddpm.data.preparation import Found, prepared
from ddpm.data.sources.image_files import ImageFiles


@dataclass(frozen=True)
class Archive(ImageFiles):
    """All images of a zip or tar file, compressed or not, as `Folder` would find them after unpacking.

    Nothing is unpacked to disk: members are read one after the other.

    Args:
        path: the file; `~` is the home directory.
        The others: see `ImageFiles`.

    Raises:
        ValueError: from `read`, where there is no such file, it is damaged, there is no image in it, or it is
            not what is asked for.
    """

    def read(self) -> DataSet:
        file = existing_file(self.path).resolve()
        with ExitStack() as stack:
            identity = {"archive": str(file), **self._chosen}
            return prepared(self, file.stem, identity, [cache.state(file)], lambda _: self._find(file, stack))

    def _find(self, file: Path, stack: ExitStack) -> Found:
        try:
            files = ArchiveFiles(str(self.path), stack.enter_context(file.open("rb")), stack)
        except Exception as error:  # each part of a damaged archive raises errors of its own
            raise ValueError(
                f"data.path={self.path} is no zip or tar file, or damaged ({short(error)}); pack it again"
            ) from error
        return self._found(files)
