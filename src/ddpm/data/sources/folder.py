"""Anyone's own images: a folder, and whatever folders are in it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddpm.data.decoding import decode_all
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder, files_below, folders_in
from ddpm.data.preparation import Found, prepared
from ddpm.data.settings import ImageSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder(ImageSettings):
    """All images below a folder; the order of their relative paths decides which are held out.

    Where every image lies in a sub-folder, the folders right below `path` are the classes; otherwise there
    are none. Hidden files and folders are ignored, links are followed.

    Args:
        path: the folder; `~` is the home directory.
        The others: see `ImageSettings`.

    Raises:
        ValueError: from `read`, where there is no such folder or no image in it.
    """

    path: str | Path

    def read(self) -> DataSet:
        folder = existing_folder(self.path)
        files = sorted(files_below(folder))
        return prepared(
            self,
            folder.resolve().name,
            {"folder": str(folder.resolve())},
            files,
            lambda _: self._find(folder, [name for name, _, _ in files]),
        )

    def _find(self, folder: Path, names: list[str]) -> Found:
        found = f"none of the {len(names)} files in it can be read" if names else "it holds no files"
        folders = [f"{name}/" for name in folders_in(folder)]
        return Found(
            [str(folder / name) for name in names],
            lambda chosen: decode_all((folder / names[index] for index in chosen), self.shaping),
            positions=scattered(len(names)),
            label=lambda kept: labels_of([names[index] for index in kept], [*names, *folders], self.path),
            nothing=f"data.path={self.path}: {found}; name a folder with images in it or below it",
            channels=self.channels,
        )


def labels_of(
    readable: Sequence[str], found: Sequence[str], path: str | Path
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels int64 [N] and classes from relative paths: the first folder in each, if there is one in all.

    A folder of which nothing could be read is no class; a warning names it.

    Args:
        readable: relative paths of the images, with `/` between folders.
        found: relative paths of all files, and of folders, with a `/` at their end.
        path: what they are relative to, for the warning.
    """
    if any("/" not in name for name in readable):
        return None, None
    classes, labels = np.unique([name.split("/")[0] for name in readable], return_inverse=True)
    for name in sorted({name.split("/")[0] for name in found if "/" in name} - set(classes.tolist())):
        logger.warning("%s/%s holds no image that can be read: it is no class", path, name)
    return labels.astype(np.int64), classes.tolist()
