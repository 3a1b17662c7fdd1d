"""Anyone's own images: a folder, and whatever folders are in it."""

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np

from ddpm.data import cache
from ddpm.data.decoding import check_channels, decode_all, parse_size
from ddpm.data.holdout import check_fraction, scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_folder, files_below, folders_in
from ddpm.data.preparation import Found, prepared
from ddpm.data.skipped import check_on_error

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Folder:
    """All images below a folder; the order of their relative paths decides which are held out.

    Where every image lies in a sub-folder, the folders right below `path` are the classes; otherwise there
    are none. Hidden files and folders are ignored, links are followed. The images are prepared once and kept
    in the cache, until a file, or a setting that they depend on, changes.

    Args:
        path: the folder; `~` is the home directory.
        image_size: pixels, or [height, width]; the shorter side is resized to fit, and the middle is kept.
        channels: 1 or 3; None is 1 if every image is grey, else 3.
        validation_fraction: share of the images that is held out, in [0, 1).
        on_error: what to do about a file that is no image: `skip` names it in a warning and lists it in
            `skipped`, `fail` refuses it.
        cache_dir: where prepared images are kept; None is $DDPM_CACHE or ~/.cache/ddpm.

    Raises:
        ValueError: for settings that cannot be; from `read`, where there is no such folder or no image in it.
    """

    path: str | Path
    image_size: int | Sequence[int]
    _: KW_ONLY
    channels: int | None = None
    validation_fraction: float = 0.1
    on_error: str = "skip"
    cache_dir: str | Path | None = None

    def __post_init__(self) -> None:
        parse_size(self.image_size)
        check_channels(self.channels)
        check_fraction(self.validation_fraction)
        check_on_error(self.on_error)

    def read(self) -> DataSet:
        folder = existing_folder(self.path)
        files = sorted(files_below(folder))
        size = parse_size(self.image_size)
        settings = {"folder": str(folder.resolve()), "size": size, "channels": self.channels}
        return prepared(
            self.cache_dir,
            folder.resolve().name,
            cache.key(settings, files),
            lambda _: self._find(folder, [name for name, _, _ in files], size),
            on_error=self.on_error,
            validation_fraction=self.validation_fraction,
        )

    def _find(self, folder: Path, names: list[str], size: tuple[int, int]) -> Found:
        encoded = ((str(folder / name), folder / name) for name in names)
        found = f"none of the {len(names)} files in it can be read" if names else "it holds no files"
        folders = [f"{name}/" for name in folders_in(folder)]
        return Found(
            decode_all(encoded, size, self.channels),
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
