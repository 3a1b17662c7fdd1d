"""Anyone's own pictures: a folder, and whatever folders are in it."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ddpm.data.decoding import check_channels, decode_all, parse_size
from ddpm.data.module import ImageDataModule
from ddpm.data.pictures import DataSet, Pictures, split


class Folder(ImageDataModule):
    """All pictures below a folder, in the order of their relative paths.

    Where every picture lies in a sub-folder, the folders right below `path` are the classes; otherwise there
    are none. Hidden files and folders are ignored. A file that is no picture is named in a warning and left
    out; `skipped` lists the path and the reason of each once `data_set` has been read.

    Args:
        path: the folder; `~` is the home directory.
        image_size: pixels, or [height, width]; the shorter side is resized to fit, and the middle is kept.
        batch_size: pictures an optimizer step, over all devices.
        channels: 1 or 3; None is 1 if every picture is grey, else 3.
        validation_fraction: share of the pictures that is held out, in [0, 1).
        horizontal_flip: mirror every other picture, at random, in training.
        num_workers: processes that prepare batches.
        seed: of the run.

    Raises:
        ValueError: for sizes and channels that cannot be; from `data_set`, where there is no such folder or
            no picture in it.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: int | Sequence[int],
        batch_size: int = 64,
        *,
        channels: int | None = None,
        validation_fraction: float = 0.1,
        horizontal_flip: bool = True,
        num_workers: int = 0,
        seed: int = 0,
    ):
        super().__init__(
            batch_size=batch_size, horizontal_flip=horizontal_flip, num_workers=num_workers, seed=seed
        )
        check_channels(channels)
        self.path = path
        self.size = parse_size(image_size)
        self.channels = channels
        self.validation_fraction = validation_fraction
        self.skipped: list[tuple[Path, str]] = []

    def read(self) -> DataSet:
        folder = existing_folder(self.path)
        files = sorted(_files(folder), key=lambda file: file.relative_to(folder).as_posix())
        sources = ((str(file), file) for file in files)
        images, kept, skipped = decode_all(sources, len(files), size=self.size, channels=self.channels)
        self.skipped = [(Path(name), reason) for name, reason in skipped]
        if not len(kept):
            found = f"none of the {len(files)} files in it can be read" if files else "it holds no files"
            raise ValueError(f"data.path={self.path}: {found}; name a folder with pictures in it or below it")
        paths = [files[index].relative_to(folder) for index in kept]
        if any(len(path.parts) == 1 for path in paths):
            return split(Pictures(images), self.validation_fraction, None)
        classes, labels = np.unique([path.parts[0] for path in paths], return_inverse=True)
        return split(Pictures(images, labels.astype(np.int64)), self.validation_fraction, classes.tolist())


def existing_folder(path: str | Path) -> Path:
    """The folder that data.path names.

    Raises:
        ValueError: where there is none.
    """
    folder = Path(os.path.expanduser(path))
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ValueError(f"data.path={path} is a file; name the folder that it is in")
    whence = "" if folder.is_absolute() else f" in {Path.cwd()}"
    raise ValueError(f"data.path={path}: there is no such folder{whence}; check the spelling")


def _files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Every file below a folder, through links too, but not round in circles."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    for entry in visible:
        if entry.is_dir():
            yield from _files(Path(entry.path), (*above, real))
        elif entry.is_file() or entry.is_symlink():
            yield Path(entry.path)
