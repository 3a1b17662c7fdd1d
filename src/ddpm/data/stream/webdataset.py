"""Rows of webdataset shards: tar files of images with their labels beside them."""

import itertools
import tarfile
from collections.abc import Iterator
from typing import IO

from ddpm.data.decoding import Encoded
from ddpm.data.stream.sample import LabelValue, Sample

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "avif")
LABEL_SUFFIX = "cls"


def rows(path: str, file: IO[bytes], first: int, *, images: bool = True) -> Iterator[Sample]:
    """The rows of a file from row `first` on: neighbouring members that are called alike up to the first dot
    are one.

    Args:
        path: of the file, for names and messages.
        file: opened for reading.
        first: rows before it are passed over.
        images: whether images are read; labels always are.

    Raises:
        ValueError: where the file breaks off.
    """
    with tarfile.open(fileobj=file) as opened:
        members = (member for member in opened if member.isreg())
        for row, (key, group) in enumerate(itertools.groupby(members, lambda member: _key(member.name))):
            image: Encoded | str = "there is no image in this sample"
            label = None
            for member in group:
                if row < first:
                    continue
                extension = member.name[len(key) + 1 :].lower()
                if extension == LABEL_SUFFIX:
                    label = _label(_contents(opened, member))
                elif images and extension in IMAGE_SUFFIXES:
                    image = _contents(opened, member)
            if row >= first:
                yield Sample(f"{key} of {path}", image, label)
        # Python takes damage for the end. A true end is a block of zeros.
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or opened.fileobj.tell() <= opened.offset:
            raise ValueError(f"data.path: {path} breaks off; mend or remove it")


def _contents(opened: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = opened.extractfile(member)
    assert file is not None  # it is a file, no folder or link
    return file.read()


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".")[0]


def _label(contents: bytes) -> LabelValue:
    text = contents.decode(errors="replace").strip()
    return int(text) if text.lstrip("-").isdecimal() else text
