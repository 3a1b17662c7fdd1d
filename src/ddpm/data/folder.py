"""Anyone's own pictures: a folder, and whatever folders are in it."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ddpm.data import cache
from ddpm.data.cache import FileState
from ddpm.data.decoding import check_channels, check_on_error, decode_all, parse_size
from ddpm.data.module import ImageDataModule
from ddpm.data.pictures import DataSet, check_fraction, scattered
from ddpm.data.preparation import Found, prepared

logger = logging.getLogger(__name__)


class Folder(ImageDataModule):
    """All pictures below a folder; the order of their relative paths decides which are held out.

    Where every picture lies in a sub-folder, the folders right below `path` are the classes; otherwise there
    are none. Hidden files and folders are ignored, links are followed. The pictures are prepared once and
    kept in the cache, until a file, or a setting that they depend on, changes.

    Args:
        path: the folder; `~` is the home directory.
        image_size: pixels, or [height, width]; the shorter side is resized to fit, and the middle is kept.
        batch_size: pictures an optimizer step, over all devices.
        channels: 1 or 3; None is 1 if every picture is grey, else 3.
        validation_fraction: share of the pictures that is held out, in [0, 1).
        on_error: what to do about a file that is no picture: `skip` names it in a warning and lists it in
            `data_set.skipped`, `fail` refuses it.
        cache_dir: where prepared pictures are kept; None is $DDPM_CACHE or ~/.cache/ddpm.
        horizontal_flip: mirror every other picture, at random, in training.
        dequantize: spread each level of brightness over its width by uniform noise, in training.
        label_drop: share of the labels that are withheld from the network in training, in [0, 1].
        device_share: the set lives on the device if it takes at most this share of its memory.
        num_workers: processes that prepare batches of a set that does not.
        seed: of the run.

    Raises:
        ValueError: for settings that cannot be; from `data_set`, where there is no such folder or no picture
            in it.
    """

    def __init__(
        self,
        path: str | Path,
        image_size: int | Sequence[int],
        batch_size: int = 64,
        *,
        channels: int | None = None,
        validation_fraction: float = 0.1,
        on_error: str = "skip",
        cache_dir: str | Path | None = None,
        horizontal_flip: bool = True,
        dequantize: bool = False,
        label_drop: float = 0.0,
        device_share: float = 0.25,
        num_workers: int = 2,
        seed: int = 0,
    ):
        super().__init__(
            batch_size=batch_size,
            horizontal_flip=horizontal_flip,
            dequantize=dequantize,
            label_drop=label_drop,
            device_share=device_share,
            num_workers=num_workers,
            seed=seed,
        )
        check_channels(channels)
        check_fraction(validation_fraction)
        check_on_error(on_error)
        self.path = path
        self.size = parse_size(image_size)
        self.channels = channels
        self.validation_fraction = validation_fraction
        self.on_error = on_error
        self.cache_dir = cache_dir

    def read(self) -> DataSet:
        folder = existing_folder(self.path)
        files = sorted(files_below(folder))
        settings = {"folder": str(folder.resolve()), "size": self.size, "channels": self.channels}
        return prepared(
            self.cache_dir,
            folder.resolve().name,
            cache.key(settings, files),
            lambda _: self._find(folder, [name for name, _, _ in files]),
            on_error=self.on_error,
            validation_fraction=self.validation_fraction,
        )

    def _find(self, folder: Path, names: list[str]) -> Found:
        sources = ((str(folder / name), folder / name) for name in names)
        found = f"none of the {len(names)} files in it can be read" if names else "it holds no files"
        folders = [f"{entry.name}/" for entry in _visible_in(folder) if _true(entry.is_dir)]
        return Found(
            decode_all(sources, self.size, self.channels),
            places=scattered(len(names)),
            label=lambda kept: labels_of([names[index] for index in kept], [*names, *folders], self.path),
            nothing=f"data.path={self.path}: {found}; name a folder with pictures in it or below it",
            channels=self.channels,
        )


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
    raise ValueError(f"data.path={path}: there is no such folder{whence(folder)}; check the spelling")


def existing_file(path: str | Path) -> Path:
    """The file that data.path names.

    Raises:
        ValueError: where there is none.
    """
    file = Path(os.path.expanduser(path))
    if file.is_file():
        return file
    if file.is_dir():
        raise ValueError(f"data.path={path} is a folder; name a file in it, or use data=folder")
    raise ValueError(f"data.path={path}: there is no such file{whence(file)}; check the spelling")


def whence(path: Path) -> str:
    """Where a relative path was looked for."""
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def labels_of(
    readable: Sequence[str], found: Sequence[str], path: str | Path
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels int64 [N] and classes from relative paths: the first folder in each, if there is one in all.

    A folder of which nothing could be read is no class; a warning names it.

    Args:
        readable: relative paths of the pictures, with `/` between folders.
        found: relative paths of all files, and of folders, with a `/` at their end.
        path: what they are relative to, for the warning.
    """
    if any("/" not in name for name in readable):
        return None, None
    classes, labels = np.unique([name.split("/")[0] for name in readable], return_inverse=True)
    for name in sorted({name.split("/")[0] for name in found if "/" in name} - set(classes.tolist())):
        logger.warning("%s/%s holds no picture that can be read: it is no class", path, name)
    return labels.astype(np.int64), classes.tolist()


def _visible_in(folder: str | Path) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden."""
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def files_below(folder: Path) -> Iterator[FileState]:
    """Every file below a folder, through links too, but not round in circles; names are relative to it."""
    yield from _files(os.fspath(folder), "", ())


def _files(folder: str, prefix: str, above: tuple[str, ...]) -> Iterator[FileState]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in _visible_in(folder):
        if _true(entry.is_dir):
            yield from _files(entry.path, f"{prefix}{entry.name}/", (*above, real))
        elif _true(entry.is_file):
            status = entry.stat()
            yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns
        elif entry.is_symlink():
            yield f"{prefix}{entry.name}", 0, 0


def _true(question: Callable[[], bool]) -> bool:
    """What the file system answers; False where a link leads to itself."""
    try:
        return question()
    except OSError:
        return False
