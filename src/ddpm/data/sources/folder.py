"""Anyone's own images: a folder, and whatever folders are in it."""

from dataclasses import dataclass

from ddpm.data.files.bucket import BucketFiles
from ddpm.data.files.on_disk import FolderFiles
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder, is_url
from ddpm.data.prepared.preparation import prepared
from ddpm.data.sources.image_files import BETWEEN, ImageFiles


@dataclass(frozen=True)
class Folder(ImageFiles):
    """All images below a folder, in parts and classes as people lay them out.

    Hidden files and folders are ignored, links are followed.

    Args:
        path: the folder, or its URL; `~` is the home directory.
        The others: see `ImageFiles`.

    Raises:
        ValueError: from `read`, where there is no such folder, no image in it, or not what is asked for.
    """

    def read(self) -> DataSet:
        files: BucketFiles | FolderFiles
        if is_url(self.path):
            files = BucketFiles(str(self.path))
            where, name = files.url, files.url.rpartition("/")[2]
        else:
            folder = existing_folder(self.path)
            files = FolderFiles(folder)
            where, name = str(folder.resolve()), folder.resolve().name
        identity = {"folder": where, **self._chosen}
        with self._others() as others:
            states = [*files.files, *(() if others is None else (BETWEEN, *others.states))]
            return prepared(self, name, identity, states, lambda _: self._found(files, others))
