"""The files of a zip or tar file, which is never unpacked."""

import logging
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from ddpm.data import bounds
from ddpm.data.arrays.unpacking import OPENED, SAYS
from ddpm.data.encodings import UTF_8, as_bytes, guessed, is_surely_utf_8, is_utf_8
from ddpm.data.files import folders_of, is_visible
from ddpm.data.pixels.decoding import Encoded, short

logger = logging.getLogger(__name__)

OTHER_KINDS = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!\x1a\x07": "rar"}
"""How files begin that are archives and not read."""

VOLUME = re.compile(r"\.(zip|7z|rar|tar|tgz|gz)\.\d{3}$|\.z\d\d$|\.part\d+\.rar$")
"""Names of the files that an archive was cut into."""

ENCRYPTED = 1
"""The bit of a zip member that says so."""

SAID_UTF_8 = 0x800
"""The bit of a zip member that says that its name is UTF-8."""

UNSAID = "cp437"
"""What names of zip members without it are, by the book; Python reads them as this."""


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


class ArchiveError(ValueError):
    """Why an archive is not read, and what to do."""


class ArchiveFiles:
    """The files of an archive, in the order in which they lie there, since a compressed tar has no other.

    Args:
        path: of the archive, for people.
        file: opened for reading.
        stack: closes what is opened here.
        called: the archive, in messages.
        folder: what to type for a folder that it was unpacked into.

    Attributes:
        in_order: whether reading is quick in this order alone.

    Raises:
        ArchiveError: where it is of another kind, damaged, locked, or unpacks to far too much.
    """

    def __init__(
        self,
        path: str,
        file: IO[bytes],
        stack: ExitStack,
        *,
        called: str | None = None,
        folder: str = "data=folder",
    ):
        self.path = path
        called = called or f"data.path={path}"
        self.in_order = _check_kind(path, file, called, folder)
        try:
            self.members = _newest(
                [member for member in _members(file, stack, called, folder) if _is_listed(member.name)]
            )
        except ArchiveError:
            raise
        except Exception as error:  # each part of a damaged archive raises errors of its own
            raise ArchiveError(
                f"{called} is no zip or tar file, or damaged ({short(error)}); pack it again"
            ) from error
        self.names = [member.name for member in self.members]
        self.folders = sorted(folders_of(self.names))
        reasons = {index: _refused(member) for index, member in enumerate(self.members)}
        self.refused = {index: reason for index, reason in reasons.items() if reason}
        states = [member.state for member in self.members if member.state is not None]
        self.states = states if len(states) == len(self.members) else None

    def read(self, indices: Iterable[int]) -> Iterator[Encoded | str]:
        """The contents of files, or the reasons why they cannot be read."""
        return map(self._contents, indices)

    def shown(self, name: str) -> str:
        """Its path in the archive."""
        return f"{self.path}/{name}"

    def _contents(self, index: int) -> Encoded | str:
        member = self.members[index]
        if index in self.refused or member.opened is None:
            return self.refused[index]
        try:
            with member.opened() as file:
                return file.read(member.size + 1)
        except Exception as error:  # as above
            return short(error)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or tar file, or another archive, by its name or how it begins."""
    if VOLUME.search(path.name.lower()) or SAYS.search(path.name):
        return True
    with path.open("rb") as file:
        start = file.read(8)
    return start.startswith((b"PK\x03\x04", *OTHER_KINDS)) or tarfile.is_tarfile(path)


def _check_kind(path: str, file: IO[bytes], called: str, folder: str) -> bool:
    """Refuse kinds of archives that are not read, with what unpacks them. Returns whether it is compressed
    as a whole, as a tar file may be.
    """
    start = file.read(8)
    file.seek(0)
    if VOLUME.search(path.lower()):
        raise ArchiveError(
            f"{called} is one of several files that an archive was cut into; unpack all of them into "
            f"a folder by `7z x` on the first, and use {folder}"
        )
    kind = next((kind for magic, kind in OTHER_KINDS.items() if start.startswith(magic)), None)
    if kind is not None:
        raise ArchiveError(
            f"{called} is a {kind} file, which is not read here; unpack it into a folder by "
            f"`7z x {path}`, and use {folder}"
        )
    return start.startswith(tuple(OPENED))


def _members(file: IO[bytes], stack: ExitStack, called: str, folder: str) -> list[Member]:
    is_tar = tarfile.is_tarfile(file)  # first, since a tar whose last member is a zip passes for one
    packed = file.seek(0, 2)
    file.seek(0)
    members, total = [], 0
    for member in _tar_members(file, stack) if is_tar else _zip_members(file, stack, called, folder):
        total += member.size
        if bounds.is_too_much(total, packed):
            raise ArchiveError(
                f"{called} unpacks to more than {bounds.MOST_TIMES} times its size of "
                f"{packed:,} bytes, as what is made to fill a disk does; if it is none, unpack it into a "
                f"folder and use {folder}"
            )
        members.append(member)
    return _renamed(members, called) if is_tar else members


def _newest(members: list[Member]) -> list[Member]:
    """The last of those of one name, which unpacking would leave: archives are updated by appending."""
    last = {member.name: index for index, member in enumerate(members)}
    return [member for index, member in enumerate(members) if last[member.name] == index]


def _zip_members(file: IO[bytes], stack: ExitStack, called: str, folder: str) -> Iterator[Member]:
    unzipped = stack.enter_context(zipfile.ZipFile(file))
    infos = [info for info in unzipped.infolist() if not info.is_dir()]
    if infos and all(info.flag_bits & ENCRYPTED for info in infos):
        raise ArchiveError(
            f"{called} is encrypted; unpack it with its password into a folder, and use {folder}"
        )
    for info, name in zip(infos, _names(infos, called), strict=True):
        yield Member(
            _plain(name.replace("\\", "/")),  # as old programs of Windows wrote it
            name,
            info.file_size,
            f"{info.file_size} {info.CRC:08x}",
            partial(unzipped.open, info),
        )


def _names(infos: Sequence[zipfile.ZipInfo], called: str) -> list[str]:
    """The names of zip members, in the encoding that they seem to have where they say none.

    Windows writes them in that of its language, macOS in UTF-8. The log says what is guessed.
    """
    unsaid: dict[int, bytes] = {}
    for number, info in enumerate(infos):
        if not info.flag_bits & SAID_UTF_8 and not info.filename.isascii():
            try:
                unsaid[number] = info.filename.encode(UNSAID)
            except UnicodeEncodeError:  # it says its name in Unicode elsewhere, which newer Pythons read
                continue
    return _in_one_encoding([info.filename for info in infos], unsaid, called)


def _in_one_encoding(names: list[str], unsaid: Mapping[int, bytes], called: str) -> list[str]:
    """Names, of which some are given as bytes: those that are surely UTF-8 are read so, and the others in the
    encoding that all of these seem to have.
    """
    for number, name in unsaid.items():
        if is_surely_utf_8(name):
            names[number] = name.decode(UTF_8)
    open_ = {number: name for number, name in unsaid.items() if not is_surely_utf_8(name)}
    encoding = guessed(list(open_.values()))
    if not open_ or encoding is None:
        return names
    for number, name in open_.items():
        names[number] = name.decode(encoding)
    if encoding != UTF_8:
        shown = names[next(iter(open_))]
        logger.warning(
            "%s does not say which encoding its names have: they are read as %s, as in %s",
            called,
            encoding,
            shown,
        )
    return names


def _tar_members(file: IO[bytes], stack: ExitStack) -> Iterator[Member]:
    untarred = stack.enter_context(tarfile.open(fileobj=file))  # noqa: SIM115 - the stack closes it
    number = 0
    for info in untarred:
        number += 1
        opened = partial(_open, untarred, info) if info.isreg() else None
        if not info.isdir():
            yield Member(_plain(info.name), info.name, info.size, None, opened)
    # Python takes damage for the end. A true end is a block of zeros.
    untarred.fileobj.seek(untarred.offset)
    if untarred.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or untarred.fileobj.tell() <= untarred.offset:
        raise ValueError(f"it breaks off after {number} members")


def _renamed(members: list[Member], called: str) -> list[Member]:
    """Members of a tar, whose names Python reads as UTF-8, where some are none: all in the encoding that they
    seem to have. Nothing marks a name as UTF-8 but a header of the newer format, which Python obeys.
    """
    if all(is_utf_8(member.full_name) for member in members):
        return members
    unsaid = {
        number: as_bytes(member.full_name)
        for number, member in enumerate(members)
        if not member.full_name.isascii()
    }
    names = _in_one_encoding([member.full_name for member in members], unsaid, called)
    return [
        member._replace(name=_plain(name), full_name=name)
        for member, name in zip(members, names, strict=True)
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
    if member.size > bounds.MOST_BYTES:
        return f"it unpacks to {member.size:,} bytes; at most {bounds.MOST_BYTES:,} are read"
    return ""


def _is_listed(name: str) -> bool:
    return is_visible(name) and not name.startswith("__MACOSX/")


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))
