"""Rows of webdataset shards: tar files of images with their labels beside them."""

import codecs
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import IO, Any, NamedTuple, cast

from ddpm.data import bounds, columns
from ddpm.data.columns import LabelValue, NoClassError
from ddpm.data.encodings import as_bytes, decoded, guessed, is_utf_8
from ddpm.data.layout.names import IMAGES
from ddpm.data.stream.sample import Counted, Sample
from ddpm.data.stream.unpacking import Unzipped

LABEL_SUFFIX, CAPTION_SUFFIX = "cls", "txt"
MOST_DIGITS = 19
NOT_READ = "it is not read"
GZIP = b"\x1f\x8b"


def count(path: str, file: IO[bytes], label_column: str | None) -> Counted:
    """What a file holds; of the members only those with labels are read.

    Args:
        path: of the file, for messages.
        file: opened for reading.
        label_column: where labels stand, as for `rows`; None looks for them.

    Raises:
        ValueError: where the file breaks off, the files of a sample lie apart, or labels are none of classes.
    """
    found = Counted()
    keys: set[str] = set()
    with _opened(path, file) as opened:
        for key, contents in _samples(opened, 0, partial(_says_label, label_column=label_column)):
            if key in keys:
                raise ValueError(
                    f"data.path: {path}: the files of the sample {key} do not lie together; pack it in the "
                    "order of names, as in tar --sort=name"
                )
            keys.add(key)
            found.several |= sum(map(_is_image, contents)) > 1
            if any(_suffix(extension) == CAPTION_SUFFIX for extension in contents):
                found.captions.add(f".{CAPTION_SUFFIX} files")
            try:
                said = _labelled(contents, label_column)
            except NoClassError as error:
                if label_column is not None:
                    raise ValueError(
                        f"data.label_column={label_column} must say one class for each image ({key} of "
                        f"{path}: {error})"
                    ) from error
                found.why = found.why or f"the labels are none of classes: {error}"
                said = UNLABELLED
            if said.column is not None:
                found.label_columns.add(said.column)
                found.labels_from.add(said.where)
            found.add(said.label)
        _check_end(path, opened)
    return found


def rows(path: str, file: IO[bytes], first: int, label_column: str | None) -> Iterator[Sample]:
    """The rows of a file from row `first` on: neighbouring members that are called alike up to the first dot
    are one. Of several images in one, that whose suffixes come first in the alphabet is taken.

    Args:
        path: of the file, for names and messages.
        file: opened for reading.
        first: rows before it are passed over.
        label_column: the suffix of the files of labels, or the key of the label in `.json` files; None is
            `.cls` files, else one of `ddpm.data.columns.LABEL_NAMES`; `none` gives no labels.

    Raises:
        ValueError: where the file breaks off.
    """

    def wanted(extension: str) -> bool:
        return _is_image(extension) or _says_label(extension, label_column)

    with _opened(path, file) as opened:
        for key, contents in _samples(opened, first, wanted):
            label = _labelled(contents, label_column).label
            images = sorted(filter(_is_image, contents))
            image = contents[images[0]] if images else "there is no image in this sample"
            yield Sample(f"{key} of {path}", image, label)
        _check_end(path, opened)


Contents = Mapping[str, bytes | str]
"""Files of a sample, by what follows the first dot of their names, in small letters: what is in them, or the
reason why it is not read."""


@contextmanager
def _opened(path: str, file: IO[bytes]) -> Iterator[tarfile.TarFile]:
    is_packed = file.read(len(GZIP)) == GZIP
    file.seek(0)
    bounded = cast(IO[bytes], Unzipped(path, file)) if is_packed else file
    with tarfile.open(fileobj=bounded, mode="r:") as opened:
        yield opened


def _check_end(path: str, opened: tarfile.TarFile) -> None:
    # Python takes damage for the end. A true end is a block of zeros.
    file = cast(IO[bytes], opened.fileobj)
    file.seek(opened.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0") or file.tell() <= opened.offset:
        raise ValueError(f"data.path: {path} breaks off; mend or remove it")


def _samples(
    opened: tarfile.TarFile, first: int, wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Contents]]:
    """The samples from number `first` on, with their keys and what is in the files that are wanted. Hidden
    files, and those without a suffix, are in none.
    """
    named = ((*_split(_name(member)), member) for member in opened if member.isreg())
    visible = ((key, extension, member) for key, extension, member in named if key and extension)
    for number, (key, group) in enumerate(itertools.groupby(visible, lambda one: one[0])):
        if number >= first:  # each is read as it is passed: what is compressed has no way back
            yield key, {ext: _contents(opened, one) if wanted(ext) else NOT_READ for _, ext, one in group}


def _name(member: tarfile.TarInfo) -> str:
    """Read as GB18030 where it is no UTF-8 and seems to be that."""
    if is_utf_8(member.name):
        return member.name
    encoding = guessed([as_bytes(member.name)])
    return member.name if encoding is None else as_bytes(member.name).decode(encoding)


def _split(name: str) -> tuple[str, str]:
    """Key and extension of a member; an empty key where it is hidden."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    stem, _, extension = base.partition(".")
    hidden = not stem or folder.startswith("__MACOSX")
    return "" if hidden else folder + slash + stem, extension.lower()


def _suffix(extension: str) -> str:
    return extension.rpartition(".")[2]


def _is_image(extension: str) -> bool:
    return _suffix(extension) in IMAGES


def _says_label(extension: str, label_column: str | None) -> bool:
    """Whether a file may hold the label of its sample."""
    if label_column == "none" or _is_image(extension):
        return False
    is_object = label_column != LABEL_SUFFIX and _suffix(extension) == "json"
    return is_object or _is_label(extension, label_column)


def _is_label(extension: str, label_column: str | None) -> bool:
    """Whether a file is called as those that hold nothing but a label."""
    return (label_column or LABEL_SUFFIX).lower() in (extension, _suffix(extension))


class Said(NamedTuple):
    """A label: the suffix or the key that it stands under, where this is, for people, and what it is."""

    column: str | None
    where: str
    label: LabelValue | None


UNLABELLED = Said(None, "", None)


def _labelled(contents: Contents, label_column: str | None) -> Said:
    """The label of a sample."""
    said = {extension: text for extension, text in contents.items() if _says_label(extension, label_column)}
    for extension, text in said.items():
        if _is_label(extension, label_column):
            suffix = label_column or LABEL_SUFFIX
            return Said(suffix, f".{suffix} files", _class_in(text) if isinstance(text, bytes) else None)
    for text in said.values():
        values = _object(text)
        for key in columns.LABEL_NAMES if label_column is None else (label_column,):
            if key in values:
                return Said(key, f"the key {key} of .json files", columns.label(values[key]))
    return UNLABELLED


def _object(contents: bytes | str) -> dict[str, Any]:
    try:
        said = json.loads(_words(contents)) if isinstance(contents, bytes) else None
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _contents(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | str:
    """What is in a member, or the reason why it is not read."""
    if member.size > bounds.MOST_BYTES:
        return f"it unpacks to {member.size:,} bytes; at most {bounds.MOST_BYTES:,} are read"
    file = opened.extractfile(member)
    assert file is not None  # it is a file, no folder or link
    return file.read()


def _words(contents: bytes) -> bytes | str:
    """Of a file of json; of one in no encoding of Unicode as `_class_in` keeps them."""
    is_utf_8_or_none = b"\0" not in contents[:4]
    return contents.decode("utf-8-sig", "surrogateescape") if is_utf_8_or_none else contents


def _class_in(contents: bytes) -> LabelValue | None:
    """A label. Bytes that are no UTF-8 are kept as lone surrogates: `counting` sees all labels, and in which
    encoding they are.
    """
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = decoded(contents)[0]
    else:
        text = contents.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    text = text.strip()
    is_number = text.removeprefix("-").isdecimal() and len(text) < MOST_DIGITS
    return int(text) if is_number else text or None
