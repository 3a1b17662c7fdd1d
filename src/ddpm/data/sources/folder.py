"""Anyone's own images: a folder, and whatever folders are in it."""

from dataclasses import dataclass

from ddpm.data.files.on_disk import FolderFiles
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder
from ddpm.data.preparation import prepared
from ddpm.data.sources.image_files import ImageFiles


@dataclass(frozen=True)
class Folder(ImageFiles):
    """All images below a folder, in parts and classes as people lay them out.

    Hidden files and folders are ignored, links are followed.

    Args:
        path: the folder; `~` is the home directory.
        The others: see `ImageFiles`.

    Raises:
        ValueError: from `read`, where there is no such folder, no image in it, or not what is asked for.
    """

    def read(self) -> DataSet:
        folder = existing_folder(self.path)
        files = FolderFiles(folder)
        identity = {"folder": str(folder.resolve()), **self._chosen}
        return prepared(self, folder.resolve().name, identity, files.files, lambda _: self._found(files))
