"""Zip and tar files: those of their members that are wanted are unpacked, one after the other."""

import bz2
import gzip
import lzma
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PureWindowsPath
from typing import IO, Any, cast

from ddpm.data.arrays.held import BLOCK, check_unpacked

HEAD = 64
OPENED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

SAYS = re.compile(r"\.(zip|tar|tar\.\w+|tgz|tbz2?|txz)$", re.IGNORECASE)
"""Names of archives."""

Wanted = Callable[[bytes, str], bool]
"""From how a member begins, and its name, to whether it is unpacked."""


def unpack(archive: Path, folder: Path, wanted: Wanted) -> list[tuple[str, str]] | None:
    """Unpack what is wanted into a folder.

    Returns:
        name and reason of what is left; None where the file is no archive.

    Raises:
        ValueError: where it is damaged, or unpacks to far more than it is; other errors, by what is damaged.
    """
    with archive.open("rb") as opened:
        head = opened.read(4)
    if head.startswith(b"PK") and zipfile.is_zipfile(archive):
        members = _zipped(archive)
    elif _is_tar(archive):
        members = _tarred(archive)
    elif SAYS.search(archive.name):
        raise ValueError("it is none, or damaged")
    else:
        return None
    left = []
    for name, member in members:
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if (reads_as := PureWindowsPath(name)).anchor or ".." in reads_as.parts:  # on any system
            left.append((name, "its name leads out of the archive"))
        elif member is None:
            left.append((name, "a link or a device, not a file"))
        elif parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts):
            continue
        elif not wanted(begun := member.read(HEAD), name):
            left.append((name, "it holds no arrays"))
        else:
            file = folder.joinpath(*parts)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("xb") as written:
                written.write(begun)
                shutil.copyfileobj(member, written, BLOCK)
    return left


def _is_tar(archive: Path) -> bool:
    with suppress(Exception):  # of whatever a damaged file is taken for
        return tarfile.is_tarfile(archive)
    return False


def _zipped(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if not info.is_dir()]
        check_unpacked(archive.stat().st_size, sum(info.file_size for info in files))
        for info in files:
            with opened.open(info) as member:
                yield info.filename, member


def _tarred(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    with archive.open("rb") as file, ExitStack() as stack:
        head = file.read(5)
        file.seek(0)
        decompressed = next((open_ for start, open_ in OPENED.items() if head.startswith(start)), None)
        counted = Counted(stack.enter_context(decompressed(file)) if decompressed else file, file)
        with tarfile.open(fileobj=cast(IO[bytes], counted), mode="r|") as opened:
            count = 0
            for info in opened:
                count += 1
                if not info.isdir():
                    yield info.name, opened.extractfile(info) if info.isreg() else None
            # Python takes damage for the end. A true end is blocks of zeros, and nothing after them.
            ended = not counted.tail.strip(b"\0")
            while rest := opened.fileobj.read(BLOCK):
                ended &= not rest.strip(b"\0")
            if not ended or counted.tail.strip(b"\0"):
                raise ValueError(f"it breaks off after {count} members")


class Counted:
    """A stream that ends with an error where it unpacks to far more than was read of its file.

    Attributes:
        tail: the last bytes that were read.
    """

    def __init__(self, stream: IO[bytes], file: IO[bytes]):
        self.stream = stream
        self.file = file
        self.count = 0
        self.tail = b"?"

    def read(self, size: int) -> bytes:
        contents = self.stream.read(size)
        self.count += len(contents)
        check_unpacked(self.file.tell(), self.count)
        self.tail = contents[-512:] or self.tail
        return contents
