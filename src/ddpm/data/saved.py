"""Images that any program has saved: pictures in a folder or an archive, or one array of all of them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from ddpm.data.arrays.files import format_of
from ddpm.data.arrays.held import Held, Workspace
from ddpm.data.arrays.labels import is_line, values_of
from ddpm.data.arrays.layouts import Layout, layouts
from ddpm.data.arrays.roles import LABELS
from ddpm.data.files.archived import ArchiveFiles, is_archive
from ddpm.data.files.arrays import array_or_reason
from ddpm.data.files.on_disk import FolderFiles
from ddpm.data.layout.names import ARRAY, listed, sort, suffix
from ddpm.data.pixels.decoding import Decoded, decode_all, from_array, short
from ddpm.data.pixels.shaping import Shaping

IMAGES = ("arr_0", "images", "samples")
"""Names of an array of images, where several could be it."""

NAMES_OF_LABELS = {"arr_1", *LABELS}

DRAWN = "samples.npz"
"""What sample.py writes into its folder, beside pictures of the same images."""

READ = (
    "a folder, zip or tar file of pictures, or an npz or npy file of all of them, uint8 [N, H, W, C] or "
    "[N, C, H, W], is read"
)

Read = Callable[[range], Iterator[Decoded | str]]
"""(neighbouring indices) -> each image, or the reason why it cannot be read."""


class Saved(Protocol):
    """Images that are there, and are read some at a time.

    Attributes:
        n: how many.
    """

    n: int

    def name(self, index: int) -> str:
        """Of an image, as people find it."""
        ...

    def labels(self) -> np.ndarray | None:
        """Of the images, int64 [n] or strings [n]; None where there are none.

        Raises:
            ValueError: where they are no labels.
        """
        ...

    def opened(self) -> AbstractContextManager[Read]:
        """Open them for reading, in one process."""
        ...


def saved_at(path: Path, channels: int | None = None) -> Saved:
    """The images at a path.

    Args:
        path: a folder, zip or tar file of pictures, through its folders, in the order of their names (of a
            tar file that is compressed, in that in which they lie there); an npz or npy file; or the folder
            of sample.py.
        channels: that the images must have, where they are neither grey nor in colour; None where they are.

    Raises:
        ValueError: where there are none, saying what is read.
    """
    if not path.is_dir():
        is_of_arrays = format_of(path) is not None
        if not is_of_arrays and path.is_file() and is_archive(path):
            return Pictures(path, channels)
        return Stack(path, channels)
    if (path / DRAWN).is_file():
        return Stack(path / DRAWN, channels)
    files = path / "images"  # of sample.py with format=png; beside them are grids
    is_of_sample = (path / "request.json").is_file() and files.is_dir()
    return Pictures(files if is_of_sample else path, channels)


class Pictures:
    """The pictures of a folder or an archive, which is never unpacked; of a folder without pictures arrays of
    one image each.

    Raises:
        ValueError: where there are none, or the archive is damaged, or unpacks to far too much.
    """

    def __init__(self, path: Path, channels: int | None = None):
        self._path = path
        self._shaping = Shaping(channels=channels)
        self._folder = FolderFiles(path) if path.is_dir() else None
        with self._files() as files:
            names = files.names
            self._chosen = sort(names).images
            if isinstance(files, FolderFiles) or not files.in_order:
                self._chosen.sort(key=lambda index: names[index])
            self._names = [files.shown(names[index]) for index in self._chosen]
        self.n = len(self._chosen)
        if not self.n:
            there = f"no pictures, only {listed(names)}" if names else "no files"
            raise ValueError(f"holds {there}; {READ}")
        self._are_arrays = suffix(names[self._chosen[0]]) == ARRAY

    def name(self, index: int) -> str:
        return self._names[index]

    def labels(self) -> np.ndarray | None:
        return None

    @contextmanager
    def opened(self) -> Iterator[Read]:
        with self._files() as files:

            def read(indices: range) -> Iterator[Decoded | str]:
                encoded = files.read(self._chosen[indices.start : indices.stop])
                if self._are_arrays:
                    return (array_or_reason(one, self._shaping) for one in encoded)
                return decode_all(encoded, self._shaping)

            yield read

    @contextmanager
    def _files(self) -> Iterator[FolderFiles | ArchiveFiles]:
        if self._folder is not None:
            yield self._folder
            return
        with ExitStack() as stack:
            file = stack.enter_context(self._path.open("rb"))
            yield ArchiveFiles(str(self._path), file, stack, called="it", folder="samples=FOLDER")


class Stack:
    """The images of one array in an npz or npy file, and labels beside them.

    Raises:
        ValueError: where the file holds none, or cannot be read.
    """

    def __init__(self, path: Path, channels: int | None = None):
        self._path = path
        self._shaping = Shaping(channels=channels)
        with ExitStack() as stack:
            arrays = _arrays(path, stack)
            self._held, self._layout = _images(arrays, channels)
            self.n = self._layout.count
            lines = [one for one in arrays if is_line(one.shape) and one.shape.count(self.n)]
            named = (one.name for one in lines if one.name.lower() in NAMES_OF_LABELS)
            self._labels = next(named, None)

    def name(self, index: int) -> str:
        return f"image {index} of {self._held}"

    def labels(self) -> np.ndarray | None:
        if self._labels is None:
            return None
        with ExitStack() as stack:
            return values_of(next(one for one in _arrays(self._path, stack) if one.name == self._labels))

    @contextmanager
    def opened(self) -> Iterator[Read]:
        with ExitStack() as stack:
            held = next(one for one in _arrays(self._path, stack) if one.name == self._held)

            def read(indices: range) -> Iterator[Decoded | str]:
                assert held.part is not None
                for index in indices:  # of whatever size, one takes little memory
                    try:
                        image = self._layout.turned(held.part(index, index + 1))[0]
                    except Exception as error:  # a damaged file raises whatever its parts raise
                        yield short(error)
                        return
                    yield from_array(np.ascontiguousarray(image), self._shaping)

            yield read


def _arrays(path: Path, stack: ExitStack) -> list[Held]:
    """The arrays of a file, which stays open as long as the stack.

    Raises:
        ValueError: where it is of another kind, or damaged.
    """
    format_ = format_of(path)
    if format_ is None or format_.name not in ("npz", "npy"):
        raise ValueError(
            f"is neither a folder nor an archive, npz or npy file; {READ}; of a single picture name its "
            "folder"
        )
    try:
        return format_.read(path, path.stem if format_.holds_one else "", Workspace(path.parent, stack))
    except Exception as error:  # as above
        raise ValueError(f"could not be read as {format_.name} ({short(error)}); save it anew") from error


def _images(arrays: list[Held], channels: int | None) -> tuple[str, Layout]:
    """The name of the array of images, and how they lie in it."""
    found = {}
    for one in arrays:
        possible = [
            layout for layout in layouts(one.shape, channels) if layout.axis == 0 and len(one.shape) > 2
        ]
        if one.dtype == np.uint8 and possible and one.part is not None and one.axis == 0:
            found[one.name] = possible[0]
    named = [name for name in IMAGES if name in found]
    if not found or (len(found) > 1 and not named):
        there = listed(map(str, arrays)) or "no arrays"
        which = f"more than one array of images, {there}; call one arr_0" if found else f"{there}, no images"
        raise ValueError(f"holds {which}; {READ}")
    name = named[0] if named else next(iter(found))
    return name, found[name]
