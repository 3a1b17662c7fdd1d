"""Shards as people write them."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ddpm.data.images import DataSet
from ddpm.data.sources.shard_stream import ShardStream
from ddpm.data.stream.images import StreamedImages


def png(number: int) -> bytes:
    """An image that tells which one it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 1, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], mode: Any = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, contents in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return path


def numbered(numbers: Sequence[int], **others: Sequence[bytes]) -> dict[str, bytes]:
    """Members of samples: an image each, and what else has these suffixes."""
    members = {}
    for index, number in enumerate(numbers):
        members[f"{number:04}.png"] = png(number)
        members |= {f"{number:04}.{suffix}": contents[index] for suffix, contents in others.items()}
    return members


def write_parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def encoded(numbers: Sequence[int]) -> list[dict[str, object]]:
    return [{"bytes": png(number), "path": None} for number in numbers]


def read(path: Path, **settings: Any) -> DataSet:
    return ShardStream(path, **{"image_size": 4, "validation_size": 0, **settings}).read()


def trained_on(found: DataSet) -> list[tuple[int, str | None]]:
    """Every image to train on, as its number and class, in the order of the shards."""
    streamed = found.train
    assert isinstance(streamed, StreamedImages)
    shown = []
    for shard, first in enumerate(streamed.held_out.tolist()):
        for sample in streamed.shards.read(shard, first):
            pixels = sample.decoded(streamed.shaping)
            assert not isinstance(pixels, str), pixels
            label = None if found.classes is None else found.classes[streamed.shards.label_of(sample)]
            shown.append((int(pixels.pixels[0, 0, 0]), label))
    assert len(shown) == len(streamed)
    return shown


def numbers(found: DataSet) -> tuple[list[int], list[int]]:
    """Which images are trained on, and which are held out."""
    return [number for number, _ in trained_on(found)], found.validation.images[:, 0, 0, 0].tolist()
