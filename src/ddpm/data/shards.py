"""Parquet and webdataset shards: counted once, then read from any row on, one row after the other."""

import itertools
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ddpm.data import cache
from ddpm.data.cache import Cache
from ddpm.data.decoding import Source, short

if TYPE_CHECKING:
    import pyarrow.parquet as pq
    from fsspec import AbstractFileSystem

SUFFIXES = (".parquet", ".tar", ".tar.gz", ".tgz")
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "jp2", "ppm", "avif")
LABEL = "cls"
LABEL_NAMES = ("label", "fine_label")
ROWS_AT_ONCE = 64

Value = int | str


class Sample(NamedTuple):
    """A row of a shard.

    Attributes:
        name: shard and row.
        source: a picture, still encoded, or the reason why there is none.
        label: None where there are no classes.
    """

    name: str
    source: Source | str
    label: Value | None


@dataclass(frozen=True)
class Shards:
    """Shards of one kind, in the order of their names.

    Attributes:
        url: of their place, for `fsspec`.
        paths: of the files, there.
        counts: int64 [S], rows in each.
        classes: names of the labels, if there are any.
        values: the label of each class, as the shards have it.
        image_column: of parquet.
        label_column: of parquet; None where there are no classes.
        identity: what tells these shards from others on every machine: names, sizes and rows.
    """

    url: str
    paths: Sequence[str]
    counts: np.ndarray
    classes: Sequence[str] | None
    values: Sequence[Value] | None
    image_column: str | None
    label_column: str | None
    identity: Sequence[tuple[str, int, int]]

    @cached_property
    def labels(self) -> dict[Value, int]:
        """The label, from 0, of each value."""
        return {value: label for label, value in enumerate(self.values or ())}

    def read(self, shard: int, first: int) -> Iterator[Sample]:
        """The rows of a shard from row `first` on.

        Raises:
            ValueError: where it holds fewer rows than were counted.
        """
        path, row = self.paths[shard], first
        with _filesystem(self.url).open(path, "rb") as file:
            if path.endswith(".parquet"):
                samples = _parquet_rows(path, file, first, self.image_column, self.label_column)
            else:
                samples = _tar_rows(path, file, first)
            for sample in samples:
                yield sample
                row += 1
        if row < self.counts[shard]:
            raise ValueError(f"data.path: {path} was changed while it was read; run again")


def find_shards(
    path: str | Path,
    cache_dir: str | Path | None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Shards:
    """All shards that a path names. Their rows are counted, once: the counts are kept in the cache.

    Args:
        path: a folder, a pattern such as `shards/train-*.tar`, or the same behind a protocol that `fsspec`
            knows (`hf://datasets/...`, `s3://...`).
        cache_dir: see `Cache`.
        image_column: of parquet; None is the first column of pictures.
        label_column: of parquet; None is one called `label` or `fine_label`, if any.

    Raises:
        ValueError: where there are no shards, one is damaged, or holds no pictures or no label.
    """
    url = str(path) if "://" in str(path) else str(Path(path).expanduser().absolute())
    try:
        filesystem = _filesystem(url)
        root = filesystem._strip_protocol(url)
        found = filesystem.find(root) if filesystem.isdir(root) else filesystem.glob(root)
        paths = sorted(name for name in found if name.endswith(SUFFIXES))
        states = [(name, filesystem.size(name), int(filesystem.ukey(name), 16)) for name in paths]
    except Exception as error:  # each file system has errors of its own
        raise ValueError(f"data.path={path}: no shards could be listed there ({short(error)})") from error
    if not paths:
        raise ValueError(
            f"data.path={path}: there are no shards ({', '.join(SUFFIXES)}) at {url}; check the spelling"
        )
    if len({name.endswith(".parquet") for name in paths}) > 1:
        raise ValueError(f"data.path={path}: there are parquet and tar shards; name one kind, as in *.tar")
    key = cache.key({"shards": [image_column, label_column]}, states)
    about = (
        Cache(cache_dir)
        .get(
            Path(str(path).rstrip("/*")).name or "shards",
            key,
            lambda directory: _index(filesystem, paths, image_column, label_column),
        )
        .about
    )
    counts = np.array(about["counts"], np.int64)
    if not counts.sum():
        raise ValueError(f"data.path={path}: the shards there hold no rows")
    names = [name.rsplit("/", 1)[-1] for name in paths]
    sizes = [size for _, size, _ in states]
    return Shards(
        url,
        paths,
        counts,
        about["classes"],
        about["values"],
        about["image_column"],
        about["label_column"],
        list(zip(names, sizes, counts.tolist(), strict=True)),
    )


def _filesystem(url: str) -> "AbstractFileSystem":
    """Of this process: some file systems do not survive a fork. `fsspec` keeps them."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)[0]


def _index(
    filesystem: "AbstractFileSystem", paths: Sequence[str], image_column: str | None, label_column: str | None
) -> dict[str, Any]:
    """How many rows each shard has, and which labels there are."""
    counts, values, classes = [], set(), None
    for path in paths:
        try:
            with filesystem.open(path, "rb") as file:
                if path.endswith(".parquet"):
                    opened = _open_parquet(file)
                    image_column, label_column, names = _columns(path, opened, image_column, label_column)
                    classes = classes or names
                    counts.append(opened.metadata.num_rows)
                    found = _parquet_labels(opened, label_column)
                else:
                    samples = [label for _, _, label in _tar_rows(path, file, 0, pictures=False)]
                    counts.append(len(samples))
                    found = set(samples)
        except Exception as error:  # a damaged file raises whatever its parts raise
            if str(error).startswith("data."):
                raise
            raise ValueError(f"data.path: {path} is damaged ({short(error)}); mend or remove it") from error
        values |= found
    without = None in values
    if without and len(values) > 1:
        raise ValueError(
            "data.path: some samples of the shards have a label and some have none; data.label_column names "
            "another column of parquet, and a tar holds a .cls file for every picture or for none"
        )
    if without or not values:
        values, classes = None, None
    elif classes is not None:
        if not values <= set(range(len(classes))):  # -1 is how labels that are kept secret are published
            raise ValueError(
                f"data.label_column={label_column}: some pictures are of none of the {len(classes)} classes "
                "that the shards name; choose shards whose labels are known"
            )
        values = range(len(classes))
    else:
        values = sorted(values, key=lambda value: (str(type(value)), value))
        classes = [str(value) for value in values]
    return {
        "counts": counts,
        "values": None if values is None else list(values),
        "classes": classes,
        "image_column": image_column,
        "label_column": label_column,
    }


def _open_parquet(file: IO[bytes]) -> "pq.ParquetFile":
    import pyarrow.parquet as pq

    return pq.ParquetFile(file)


def _columns(
    path: str, opened: "pq.ParquetFile", image_column: str | None, label_column: str | None
) -> tuple[str, str | None, list[str] | None]:
    """The columns of pictures and of labels, and the names of the classes if the file says them."""
    import pyarrow as pa

    schema = opened.schema_arrow
    columns = ", ".join(schema.names)
    if image_column is None:
        encoded = [
            field.name
            for field in schema
            if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        ]
        if not encoded:
            raise ValueError(f"data.image_column=null: {path} has no column of pictures; it has {columns}")
        image_column = encoded[0]
    if label_column is None:
        label_column = next((name for name in LABEL_NAMES if name in schema.names), None)
    for key, name in (("image_column", image_column), ("label_column", label_column)):
        if name is not None and name not in schema.names:
            raise ValueError(f"data.{key}={name}: {path} has no such column; it has {columns}")
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
    names = info.get("features", {}).get(label_column, {}).get("names") if label_column else None
    return image_column, label_column, names


def _parquet_labels(opened: "pq.ParquetFile", column: str | None) -> set[Value | None]:
    if column is None:
        return {None}
    values = opened.read(columns=[column])[column].unique().to_pylist()
    if not all(value is None or isinstance(value, int | str) for value in values):
        raise ValueError(f"data.label_column={column} must hold whole numbers or words")
    return set(values)


def _parquet_rows(
    path: str, file: IO[bytes], first: int, image_column: str, label_column: str | None
) -> Iterator[Sample]:
    opened = _open_parquet(file)
    row = 0
    groups = []
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if row + rows <= first and not groups:
            row += rows
        else:
            groups.append(group)
    columns = [image_column] if label_column is None else [image_column, label_column]
    for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns):
        skipped = min(max(0, first - row), len(batch))
        row += skipped
        batch = batch.slice(skipped)
        labels = [None] * len(batch) if label_column is None else batch[label_column].to_pylist()
        for value, label in zip(batch[image_column].to_pylist(), labels, strict=True):
            contents = value.get("bytes") if isinstance(value, dict) else value
            source = contents if isinstance(contents, bytes) else "there is no picture in this row"
            yield Sample(f"row {row} of {path}", source, label)
            row += 1


def _tar_rows(path: str, file: IO[bytes], first: int, *, pictures: bool = True) -> Iterator[Sample]:
    """Rows of a webdataset shard: neighbouring members that are called alike up to the first dot are one."""
    with tarfile.open(fileobj=file) as opened:
        members = (member for member in opened if member.isreg())
        for row, (key, group) in enumerate(itertools.groupby(members, lambda member: _key(member.name))):
            source: Source | str = "there is no picture in this sample"
            label = None
            for member in group:
                if row < first:
                    continue
                extension = member.name[len(key) + 1 :].lower()
                if extension == LABEL:
                    label = _label(opened.extractfile(member).read())
                elif pictures and extension in PICTURES:
                    source = opened.extractfile(member).read()
            if row >= first:
                yield Sample(f"{key} of {path}", source, label)
        # Python takes damage for the end. A true end is a block of zeros.
        opened.fileobj.seek(opened.offset)
        if opened.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0") or opened.fileobj.tell() <= opened.offset:
            raise ValueError(f"data.path: {path} breaks off; mend or remove it")


def _key(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.split(".")[0]


def _label(contents: bytes) -> Value:
    text = contents.decode(errors="replace").strip()
    return int(text) if text.lstrip("-").isdecimal() else text
