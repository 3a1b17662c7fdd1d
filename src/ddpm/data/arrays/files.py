"""The files that hold arrays, alone, in a folder or in an archive, and what is in them."""

import gzip
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from ddpm.data.arrays import cifar, hdf5, idx, mat, npz
from ddpm.data.arrays.held import BLOCK, Held, Workspace
from ddpm.data.arrays.unpacking import Counted, unpack
from ddpm.data.classes import natural
from ddpm.data.paths import files_below
from ddpm.data.pixels.decoding import short

HEAD = 32
ZIP = b"PK\x03\x04"
GZIP = b"\x1f\x8b"
EXTENSION = re.compile(r"\.(npy|npz|gz|mat|h5|hdf5|hdf|he5|bin|pkl|pickle|p|txt|ubyte)$", re.IGNORECASE)
SAYS = re.compile(
    r"\.(npy|npz|mat|h5|hdf5)(\.gz)?$|-ubyte(\.gz)?$|^(data_batch_[0-9]+|test_batch)(\.bin)?$", re.IGNORECASE
)
"""Names of files that must hold arrays: one that does not is damaged."""

READ = "npz, npy, idx, batches of CIFAR, mat and HDF5"


class Format(NamedTuple):
    """How a kind of file is read.

    Attributes:
        name: for people.
        read: from the file and what its arrays are called by, to the arrays.
        holds_one: an array, which is called as the file is; else several, each with a name of its own.
    """

    name: str
    read: Callable[[Path, str, Workspace], list[Held]]
    holds_one: bool = False


class Contents(NamedTuple):
    """What files of arrays hold.

    Attributes:
        arrays: all of them, in natural order of the files.
        left_out: name and reason of files that hold none.
    """

    arrays: list[Held]
    left_out: list[tuple[str, str]]


def contents(path: Path, work: Workspace) -> Contents:
    """The arrays of a file, or of the files in a folder or an archive.

    Args:
        path: a file or a folder.
        work: with an empty folder.

    Raises:
        ValueError: where one of them is damaged, or would unpack to far more than it is.
    """
    if path.is_dir():
        return _below(path, work)
    folder = work.folder / "unpacked"
    folder.mkdir()
    try:
        unpacked = None if _is_npz(path) else unpack(path, folder, _may_hold)
    except Exception as error:  # each part of a damaged archive raises errors of its own
        raise ValueError(f"{path.name} could not be read as an archive ({short(error)})") from error
    if unpacked is not None:
        found = _below(folder, work)
        return Contents(found.arrays, [*unpacked, *found.left_out])
    format_ = format_of(path)
    if format_ is None:
        return Contents([], [_left_out(path, path.name)])
    return Contents(_read(format_, path, _stem(path.name) if format_.holds_one else "", work), [])


def _below(folder: Path, work: Workspace) -> Contents:
    names = sorted((name for name, _, _ in files_below(folder)), key=natural)
    formats = {name: format_of(folder / name) for name in names}
    known = {name: format_ for name, format_ in formats.items() if format_ is not None}
    several = sum(not format_.holds_one for format_ in known.values()) > 1 or any(
        format_.holds_one for format_ in known.values()
    )
    top = _common([PurePosixPath(name).parent.parts for name in known])
    arrays: dict[str, Held] = {}
    left_out = [_left_out(folder / name, name) for name in names if name not in known]
    for name, format_ in known.items():
        stem = _stem("/".join(PurePosixPath(name).parts[top:]))
        prefix = stem if format_.holds_one else f"{stem}/" if several else ""
        read = _read(format_, folder / name, prefix, work)
        if repeated := [held.name for held in read if held.name in arrays]:
            left_out.append((name, f"another file holds {repeated[0]} already"))
            continue
        arrays |= {held.name: held for held in read}
    return Contents(list(arrays.values()), left_out)


def _read(format_: Format, path: Path, prefix: str, work: Workspace) -> list[Held]:
    try:
        with warnings.catch_warnings(action="ignore"):  # of a library about a file that it reads all the same
            return list({held.name: held for held in format_.read(path, prefix, work)}.values())
    except Exception as error:  # a damaged file raises whatever its parts raise
        raise ValueError(f"{path.name} could not be read as {format_.name} ({short(error)})") from error


def format_of(path: Path) -> Format | None:
    """How a file is read, by how it begins, and where that says nothing by its name; None where it is not."""
    try:
        with path.open("rb") as opened:
            head = opened.read(HEAD)
    except OSError:  # a link that leads nowhere, or what nobody may read
        return None
    name = path.name
    if head.startswith(GZIP):
        inner = _unzipped_head(path)
        if idx.is_idx(inner):
            return Format("idx", lambda *given: idx.idx(*given, compressed=True), holds_one=True)
        if cifar.is_pickle(inner):
            return Format("a pickle", lambda file, prefix, _: cifar.batch(_gunzipped(file), prefix))
        return None
    if head.startswith(ZIP):
        return Format("npz", npz.npz) if _is_npz(path) or name.lower().endswith(".npz") else None
    if head.startswith(npz.MAGIC):
        return Format("npy", npz.npy, holds_one=True)
    if head.startswith(hdf5.MATLAB):
        return Format("mat", hdf5.matlab)
    if head.startswith(hdf5.MAGIC):
        return Format("HDF5", hdf5.hdf5)
    if head.startswith(mat.MAGIC) or name.lower().endswith(".mat"):
        return Format("mat", mat.mat)
    if name in cifar.NAMES:
        return Format("names of classes", lambda file, prefix, _: cifar.class_names(file, prefix))
    if idx.is_idx(head):
        return Format("idx", lambda *given: idx.idx(*given, compressed=False), holds_one=True)
    if cifar.is_pickle(head):
        return Format("a pickle", lambda file, prefix, _: cifar.batch(file.read_bytes(), prefix))
    if cifar.is_binary(name):
        return Format("a binary batch of CIFAR", cifar.binary)
    return None


def _may_hold(head: bytes, name: str) -> bool:
    """Whether a file that begins so, and is called so, may hold arrays, as far as is known before it is
    unpacked.
    """
    starts = (GZIP, ZIP, npz.MAGIC, hdf5.MAGIC, hdf5.MATLAB, mat.MAGIC)
    own = PurePosixPath(name).name
    return (
        head.startswith(starts)
        or idx.is_idx(head)
        or cifar.is_pickle(head)
        or own in cifar.NAMES
        or cifar.is_binary(own)
        or SAYS.search(own) is not None
    )


def _is_npz(path: Path) -> bool:
    return zipfile.is_zipfile(path) and npz.is_npz(path)


def _unzipped_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as opened:
            return opened.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _gunzipped(path: Path) -> bytes:
    with path.open("rb") as packed, gzip.open(packed) as opened:
        counted = Counted(cast(IO[bytes], opened), packed)
        return b"".join(iter(lambda: counted.read(BLOCK), b""))


def _stem(name: str) -> str:
    """A file's name without what only tells its format."""
    while (shorter := EXTENSION.sub("", name)) != name:
        name = shorter
    return name


def _common(folders: Sequence[tuple[str, ...]]) -> int:
    """How many folders, from the top, are those of all files."""
    count = 0
    while folders and all(len(parts) > count and parts[count] == folders[0][count] for parts in folders):
        count += 1
    return count


def _left_out(path: Path, name: str) -> tuple[str, str]:
    """A file that holds no arrays, and the reason."""
    reason = f"it holds no arrays ({READ} are read)"
    if path.is_file() and not path.stat().st_size:
        reason = "it is empty"
    if SAYS.search(path.name):
        raise ValueError(f"{name} could not be read: {reason}, though its name says so; replace or remove it")
    return name, reason
