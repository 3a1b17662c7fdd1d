"""The files of a zip or tar file, which is never unpacked."""

import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import IO, NamedTuple

from ddpm.data.decoding import Encoded, short
from ddpm.data.files import folders_of, is_visible

MOST_BYTES = 256 << 20
"""A member that unpacks to more is refused: it would fill the memory."""

MOST_TIMES = 200
"""An archive that unpacks to more bytes than a member may have, and to so many times its size, is refused."""


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: without what leads nowhere.
        full_name: as the archive has it.
        size: bytes that it unpacks to.
        state: another whenever its contents are; None where this is not known.
        opened: opens it; None where it is no file.
    """

    name: str
    full_name: str
    size: int
    state: str | None
    opened: Callable[[], IO[bytes]] | None


class ArchiveFiles:
    """The files of an archive, in the order in which they lie there, since a compressed tar has no other.

    Args:
        path: of the archive, for people.
        file: opened for reading.
        stack: closes what is opened here.

    Raises:
        ValueError: where it is no zip or tar file, damaged, or unpacks to far too much.
    """

    def __init__(self, path: str, file: IO[bytes], stack: ExitStack):
        self.path = path
        self.members = [member for member in _members(file, stack) if is_visible(member.name)]
        self.names = [member.name for member in self.members]
        self.folders = sorted(folders_of(self.names))
        reasons = {index: _refused(member) for index, member in enumerate(self.members)}
        self.refused = {index: reason for index, reason in reasons.items() if reason}
        states = [member.state for member in self.members if member.state is not None]
        self.states = states if len(states) == len(self.members) else None

    def read(self, index: int) -> Encoded | str:
        """The contents of a file, or the reason why it cannot be read."""
        if index in self.refused:
            return self.refused[index]
        member = self.members[index]
        try:
            with member.opened() as file:
                return file.read(member.size + 1)
        except Exception as error:  # each part of a damaged archive raises errors of its own
            return short(error)

    def shown(self, name: str) -> str:
        """Its path in the archive."""
        return f"{self.path}/{name}"


def _members(file: IO[bytes], stack: ExitStack) -> list[Member]:
    # A tar that holds a zip, stored last, would pass for a zip.
    is_tar = tarfile.is_tarfile(file)
    file.seek(0)
    return _tar_members(file, stack) if is_tar else _zip_members(file, stack)


def _zip_members(file: IO[bytes], stack: ExitStack) -> list[Member]:
    unzipped = stack.enter_context(zipfile.ZipFile(file))
    return [
        Member(
            _plain(info.filename),
            info.filename,
            info.file_size,
            f"{info.file_size} {info.CRC:08x}",
            partial(unzipped.open, info),
        )
        for info in unzipped.infolist()
        if not info.is_dir()
    ]


def _tar_members(file: IO[bytes], stack: ExitStack) -> list[Member]:
    untarred = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115 - the stack closes it
    listed = untarred.getmembers()
    # Python takes damage for the end. A true end is a block of zeros.
    untarred.fileobj.seek(untarred.offset)
    if untarred.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or untarred.fileobj.tell() <= untarred.offset:
        raise ValueError(f"it breaks off after {len(listed)} members")
    return [
        Member(
            _plain(info.name),
            info.name,
            info.size,
            None,
            partial(_open, untarred, info) if info.isreg() else None,
        )
        for info in listed
        if not info.isdir()
    ]


def _open(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    assert file is not None  # it is a file, no folder or link
    return file


def _refused(member: Member) -> str:
    """Why a member is not read, or nothing."""
    if member.opened is None:
        return "a link or a device, not a file"
    if member.full_name.startswith("/") or ".." in member.name.split("/"):
        return "its name leads out of the archive"
    if member.size > MOST_BYTES:
        return f"it unpacks to {member.size:,} bytes; at most {MOST_BYTES:,} are read"
    return ""


def _plain(name: str) -> str:
    return "/".join(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))
