"""Which shards there are: counted once, then read from any row on, one row after the other."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm.data import cache
from ddpm.data.cache import Cache
from ddpm.data.decoding import short
from ddpm.data.stream import parquet, webdataset
from ddpm.data.stream.sample import LabelValue, Sample

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SUFFIXES = (".parquet", ".tar", ".tar.gz", ".tgz")


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
    values: Sequence[LabelValue] | None
    image_column: str | None
    label_column: str | None
    identity: Sequence[tuple[str, int, int]]

    @cached_property
    def labels(self) -> dict[LabelValue, int]:
        """The label, from 0, of each value."""
        return {value: label for label, value in enumerate(self.values or ())}

    def label_of(self, sample: Sample) -> int:
        """The label of a row, from 0; 0 where there are no classes."""
        return 0 if sample.label is None else self.labels.get(sample.label, 0)

    def read(self, shard: int, first: int) -> Iterator[Sample]:
        """The rows of a shard from row `first` on.

        Raises:
            ValueError: where it holds fewer rows than were counted.
        """
        path, row = self.paths[shard], first
        with _filesystem(self.url).open(path, "rb") as file:
            if path.endswith(".parquet"):
                assert self.image_column is not None  # it was found when rows were counted
                samples = parquet.rows(path, file, first, self.image_column, self.label_column)
            else:
                samples = webdataset.rows(path, file, first)
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
        image_column: of parquet; None is the first column of images.
        label_column: of parquet; None is one called `label` or `fine_label`, if any.

    Raises:
        ValueError: where there are no shards, one is damaged, or holds no images or no label.
    """
    url = str(path) if "://" in str(path) else str(Path(os.path.expanduser(path)).absolute())
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
    counts: list[int] = []
    found: set[LabelValue | None] = set()
    classes: list[str] | None = None
    for path in paths:
        try:
            with filesystem.open(path, "rb") as file:
                if path.endswith(".parquet"):
                    opened = parquet.open_file(file)
                    image_column, label_column, names = parquet.columns(
                        path, opened, image_column, label_column
                    )
                    classes = classes or names
                    counts.append(opened.metadata.num_rows)
                    found |= parquet.label_values(opened, label_column)
                else:
                    labels = [sample.label for sample in webdataset.rows(path, file, 0, images=False)]
                    counts.append(len(labels))
                    found |= set(labels)
        except Exception as error:  # a damaged file raises whatever its parts raise
            if str(error).startswith("data."):
                raise
            raise ValueError(f"data.path: {path} is damaged ({short(error)}); mend or remove it") from error
    if None in found and len(found) > 1:
        raise ValueError(
            "data.path: some samples of the shards have a label and some have none; data.label_column names "
            "another column of parquet, and a tar holds a .cls file for every image or for none"
        )
    known = {value for value in found if value is not None}
    values: Sequence[LabelValue] | None = None
    if not known:
        classes = None
    elif classes is not None:
        if not known <= set(range(len(classes))):  # -1 is how labels that are kept secret are published
            raise ValueError(
                f"data.label_column={label_column}: some images are of none of the {len(classes)} classes "
                "that the shards name; choose shards whose labels are known"
            )
        values = range(len(classes))
    else:
        values = sorted(known, key=lambda value: (str(type(value)), value))
        classes = [str(value) for value in values]
    return {
        "counts": counts,
        "values": None if values is None else list(values),
        "classes": classes,
        "image_column": image_column,
        "label_column": label_column,
    }
