"""What the name of a file says about it, before anything is opened."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

Folders = tuple[str, ...]
"""The folders that a file lies in, outermost first."""

_IMAGES = "jpg jpeg jpe jfif png apng webp gif bmp dib tif tiff jp2 j2k j2c jpx jpf ppm pgm pbm pnm avif"
IMAGES = frozenset(_IMAGES.split())
"""Suffixes of images, in small letters."""

ARRAY = "npy"
"""The suffix of arrays, each of which may be an image where nothing else is."""

_OTHERS = (
    "txt csv tsv json jsonl ndjson yaml yml toml ini cfg conf xml html htm css js md rst rtf pdf tex "
    "doc docx xls xlsx ppt pptx log lock py pyc ipynb sh bat m r c h cpp java cls caption text names "
    "data list lst npy npz mat h5 hdf5 pkl pickle pt pth bin idx parquet arrow feather mdb tfrecord "
    "tfrecords record db sqlite zip tar gz tgz bz2 xz zst 7z rar mp4 avi mov mkv webm mp3 wav flac ogg "
    "sha256 md5 sha1 torrent url lnk exe dll gitignore gitattributes bak tmp part crdownload aux"
)
OTHERS = frozenset(_OTHERS.split())
"""Suffixes of what is well known to be no image, in small letters."""

CLUTTER = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})
"""Files that operating systems leave behind, in small letters."""

CLUTTER_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "__pycache__", "$RECYCLE.BIN", "System Volume Information"}
)
"""Folders that programs leave behind."""


class Sorted(NamedTuple):
    """Numbers of files, by what their names say.

    Attributes:
        images: that parts and classes are made of.
        unknown: that are tried as images too, but decide nothing.
        others: that are not tried as images; some of them may be side files.
    """

    images: list[int]
    unknown: list[int]
    others: list[int]


def suffix(name: str) -> str:
    """What follows the last dot of a file's name, in small letters; nothing where that is not a suffix."""
    base = name.rpartition("/")[2]
    stem, dot, end = base.rpartition(".")
    return end.lower() if dot and stem else ""


def stem(name: str) -> str:
    """The name of a file without its folders and suffix."""
    base = name.rpartition("/")[2]
    end = suffix(name)
    return base[: -len(end) - 1] if end else base


def folders_of(name: str) -> Folders:
    """The folders that a file lies in."""
    return tuple(name.split("/")[:-1])


def is_clutter(name: str) -> bool:
    """Whether a program left it behind, and nobody meant it."""
    *above, base = name.split("/")
    return base.lower() in CLUTTER or not CLUTTER_FOLDERS.isdisjoint(above)


def may_be_image(name: str) -> bool:
    """Whether its name does not say that it is something else."""
    return not is_clutter(name) and _kind(suffix(name)) != "other"


def sort(names: Sequence[str], refused: Collection[int] = ()) -> Sorted:
    """Images, what may be images, and what is none. Clutter is of no kind.

    Arrays count as images where no file is named as an image; what has no known suffix counts where there is
    neither.

    Args:
        names: of files, as paths.
        refused: numbers of those that count for nothing.
    """
    found: dict[str, list[int]] = {"image": [], "array": [], "unknown": [], "other": []}
    for index, name in enumerate(names):
        if index not in refused and not is_clutter(name):
            found[_kind(suffix(name))].append(index)
    images, arrays, unknown, others = found.values()
    if not images and arrays:
        return Sorted(arrays, unknown, others)
    if not images:
        return Sorted(unknown, [], others)
    return Sorted(images, unknown, sorted(arrays + others))


def counted(number: int, singular: str = "image", plural: str | None = None) -> str:
    """A number with its noun: 1 image, 2,000 images."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first few of some names, in a sentence."""
    every = list(names)
    shown = ", ".join(every[:most])
    return f"{shown}, ..." if len(every) > most else shown


def _kind(end: str) -> str:
    if end in IMAGES:
        return "image"
    if end == ARRAY:
        return "array"
    return "other" if end in OTHERS else "unknown"
