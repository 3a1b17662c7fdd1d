"""Images in a zip or tar file, which is never unpacked."""

import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from ddpm.data import cache
from ddpm.data.decoding import Encoded, decode_all, short
from ddpm.data.holdout import scattered
from ddpm.data.images import DataSet
from ddpm.data.paths import existing_file
from ddpm.data.preparation import Found, prepared
from ddpm.data.settings import ImageSettings
from ddpm.data.sources.folder import labels_of

MOST_BYTES = 256 << 20
"""A member that unpacks to more is refused: it would fill the memory."""


@dataclass(frozen=True)
class Archive(ImageSettings):
    """All images of a zip or tar file, compressed or not, as `Folder` would find them after unpacking.

    Nothing is unpacked to disk: members are read one after the other.

    Args:
        path: the file; `~` is the home directory.
        The others: see `ImageSettings`.

    Raises:
        ValueError: from `read`, where there is no such file, it is damaged, or there is no image in it.
    """

    path: str | Path

    def read(self) -> DataSet:
        file = existing_file(self.path).resolve()
        with ExitStack() as stack:
            return prepared(
                self,
                file.stem,
                {"archive": str(file)},
                [cache.state(file)],
                lambda _: self._find(file, stack),
            )

    def _find(self, file: Path, stack: ExitStack) -> Found:
        try:
            members = _members(file, stack)
        except Exception as error:  # each part of a damaged archive raises errors of its own
            raise ValueError(
                f"data.path={self.path} is no zip or tar file, or damaged ({short(error)}); pack it again"
            ) from error
        members = [(name, read) for name, read in members if _is_visible(name)]
        names = [name for name, _ in members]
        by_name = sorted(range(len(names)), key=names.__getitem__)
        positions = np.empty(len(names), np.int64)
        positions[by_name] = scattered(len(names))
        found = f"none of the {len(names)} files in it can be read" if names else "it holds no files"
        return Found(
            [f"{self.path}/{name}" for name in names],
            lambda chosen: decode_all((members[index][1]() for index in chosen), self.shaping),
            positions=positions,
            label=lambda kept: labels_of([names[index] for index in kept], names, self.path),
            nothing=f"data.path={self.path}: {found}; name an archive of images",
            channels=self.channels,
        )


Member = tuple[str, Callable[[], Encoded | str]]
"""Name of a file in an archive, and what reads it: its contents, or the reason why there are none."""


def _members(file: Path, stack: ExitStack) -> list[Member]:
    """Every file of an archive, in the order in which they lie there, since a compressed tar has no other."""
    if not tarfile.is_tarfile(file):
        unzipped = stack.enter_context(zipfile.ZipFile(file))
        return [
            (
                _plain(info.filename),
                partial(_read, info.filename, info.file_size, partial(unzipped.open, info)),
            )
            for info in unzipped.infolist()
            if not info.is_dir()
        ]
    untarred = stack.enter_context(tarfile.open(file))  # noqa: SIM115 - the stack closes it
    listed = untarred.getmembers()
    # Python takes damage for the end. A true end is a block of zeros.
    untarred.fileobj.seek(untarred.offset)
    if untarred.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or untarred.fileobj.tell() <= untarred.offset:
        raise ValueError(f"it breaks off after {len(listed)} members")
    return [
        (_plain(info.name), partial(_read, info.name, info.size, partial(_open, untarred, info)))
        if info.isreg()
        else (_plain(info.name), lambda: "a link or a device, not a file")
        for info in listed
        if not info.isdir()
    ]


def _open(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is a file, no folder or link
    return file


def _read(name: str, size: int, opened: Callable[[], IO[bytes]]) -> Encoded | str:
    if name.startswith("/") or ".." in name.split("/"):
        return "its name leads out of the archive"
    if size > MOST_BYTES:
        return f"it unpacks to {size:,} bytes; at most {MOST_BYTES:,} are read"
    try:
        with opened() as member:
            return member.read(size + 1)
    except Exception as error:  # as above
        return short(error)


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _is_visible(name: str) -> bool:
    parts = name.split("/")
    return parts[0] != "__MACOSX" and not any(part.startswith(".") and part != ".." for part in parts)
