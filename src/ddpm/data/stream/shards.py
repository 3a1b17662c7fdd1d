"""Which shards there are: counted once, then read from any row on, one row after the other."""

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ddpm.data.columns import LabelValue
from ddpm.data.encodings import decoded
from ddpm.data.paths import is_url
from ddpm.data.pixels.decoding import short
from ddpm.data.prepared import cache
from ddpm.data.prepared.cache import Cache
from ddpm.data.prepared.preparation import Understood
from ddpm.data.settings import ReadingSettings
from ddpm.data.stream import parquet, webdataset
from ddpm.data.stream.counting import counted, is_parquet
from ddpm.data.stream.parts import chosen_shards
from ddpm.data.stream.sample import Sample

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SUFFIXES = (".parquet", ".tar", ".tar.gz", ".tgz")
CLASS_NAMES = "classnames.txt"
"""Beside the shards, names classes 0, 1, ..., a line each, as CLIP_benchmark's data sets have it."""

WILDCARDS = frozenset("*?[")
COUNTING = 3
"""Raised whenever what is kept about shards changes its meaning."""


@dataclass(frozen=True)
class Shards:
    """Shards of one kind, in the order of their names.

    Attributes:
        url: of where they lie, for `fsspec`.
        paths: of the files, there.
        counts: int64 [S], rows in each.
        classes: names of the labels, if there are any.
        values: the label of each class, as the shards have it.
        image_column: of parquet.
        label_column: where labels stand: a column of parquet, or as `webdataset.rows` takes it.
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

    def subset(self, indices: Sequence[int]) -> "Shards":
        """Some of these shards."""
        return replace(
            self,
            paths=[self.paths[index] for index in indices],
            counts=self.counts[np.asarray(indices, np.int64)],
            identity=[self.identity[index] for index in indices],
        )

    def read(self, shard: int, first: int) -> Iterator[Sample]:
        """The rows of a shard from row `first` on.

        Raises:
            ValueError: where it holds fewer rows than were counted.
        """
        path, row = self.paths[shard], first
        if row >= self.counts[shard]:
            return
        with _filesystem(self.url).open(path, "rb") as file:
            if is_parquet(path):
                assert self.image_column is not None  # it was found when rows were counted
                samples = parquet.rows(path, file, first, self.image_column, self.label_column)
            else:
                samples = webdataset.rows(path, file, first, self.label_column)
            for sample in samples:
                yield sample
                row += 1
        if row < self.counts[shard]:
            raise ValueError(f"data.path: {path} was changed while it was read; run again")


class ShardSet(NamedTuple):
    """The shards of a set that are used.

    Attributes:
        train: those to train on.
        validation: those to validate on; None holds out rows of the others.
        understood: which these are, and where the classes come from.
        notes: what else is to be said, a sentence each.
    """

    train: Shards
    validation: Shards | None
    understood: Understood
    notes: Sequence[str]


def find_shards(
    path: str | Path,
    settings: ReadingSettings,
    image_column: str | None = None,
    label_column: str | None = None,
) -> ShardSet:
    """The shards that a path names, by what they are for. Their rows are counted once: what is found is kept
    in the cache.

    Args:
        path: a folder, a pattern such as `shards/train-*.tar`, or the same behind a protocol that `fsspec`
            knows (`hf://datasets/...`, `s3://...`).
        settings: which parts are used, and where the cache is.
        image_column: of parquet; None is the first column of images.
        label_column: where labels stand; None looks for them, `none` takes none.

    Raises:
        ValueError: where there are no such shards, one is damaged, or holds no images or no label.
    """
    url = str(path) if is_url(path) else str(Path(os.path.expanduser(path)).absolute())
    try:
        filesystem = _filesystem(url)
        root = filesystem._strip_protocol(url)
        is_folder = filesystem.isdir(root)
        found = filesystem.find(root) if is_folder else filesystem.glob(root)
        paths = sorted(name for name in found if name.lower().endswith(SUFFIXES))
        states = {name: (name, filesystem.size(name), int(filesystem.ukey(name), 16)) for name in paths}
    except Exception as error:  # each file system has errors of its own
        raise ValueError(f"data.path={path}: no shards could be listed there ({short(error)})") from error
    if not paths:
        raise ValueError(
            f"data.path={path}: there are no shards ({', '.join(SUFFIXES)}) at {url}; check the spelling"
        )
    if len(set(map(is_parquet, paths))) > 1:
        raise ValueError(f"data.path={path}: there are parquet and tar shards; name one kind, as in *.tar")
    folder = root if is_folder else _folder(root)
    parts = chosen_shards(paths, folder, settings, path)
    used = [*parts.train, *parts.validation]
    asked = {"counting": COUNTING, "columns": [image_column, label_column], "train": len(parts.train)}
    alike = {**asked, "train": None, "url": url, "parts": [settings.split, settings.validation_split]}
    name = Path(str(path).rstrip("/*")).name or "shards"
    entry = Cache(settings.cache_dir, settings.cache_limit).get(
        name,
        cache.key(asked, [states[name] for name in used]),
        lambda _: {
            "name": name,
            "source": None if is_url(path) else folder,
            "family": cache.key(alike, []),
            **counted(filesystem, parts, image_column, label_column),
        },
    )
    entry.release()  # it is read
    about = entry.about
    counts = np.array(about["counts"], np.int64)
    for held, which in zip((counts[: len(parts.train)], counts[len(parts.train) :]), parts[2:], strict=True):
        if len(held) and not held.sum():
            raise ValueError(f"data.path={path}: the {which} there hold no rows")
    classes, values, why = about["classes"], about["values"], about["why"]
    if classes is None and values is not None:
        classes = [str(value) for value in values]
        if names := _class_names(filesystem, folder, values):
            classes, values, why = names, range(len(names)), f"{why}, named by {CLASS_NAMES}"
    every = Shards(
        url,
        used,
        counts,
        classes,
        values,
        about["image_column"],
        about["label_column"],
        [(name.rsplit("/", 1)[-1], states[name][1], int(n)) for name, n in zip(used, counts, strict=True)],
    )
    train, validation = range(len(parts.train)), range(len(parts.train), len(used))
    return ShardSet(
        every.subset(train),
        every.subset(validation) if validation else None,
        Understood(parts.train_name, parts.validation_name, why),
        about["notes"],
    )


def _filesystem(url: str) -> "AbstractFileSystem":
    """Of this process: some file systems do not survive a fork. `fsspec` keeps them."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)[0]


def _folder(pattern: str) -> str:
    """The folder that everything lies in that a pattern names."""
    *folders, _ = pattern.split("/")
    plain = itertools.takewhile(lambda name: WILDCARDS.isdisjoint(name), folders)
    return "/".join(plain)


def _class_names(
    filesystem: "AbstractFileSystem", folder: str, values: Sequence[LabelValue]
) -> list[str] | None:
    """The names of classes that lie in a folder, or in that around it, for labels that are numbers."""
    if not all(isinstance(value, int) for value in values):
        return None
    for where in (folder, folder.rpartition("/")[0]):
        file = f"{where}/{CLASS_NAMES}"
        if filesystem.exists(file):
            names = decoded(filesystem.cat_file(file))[0].strip().splitlines()
            if strange := [value for value in values if value not in range(len(names))]:
                raise ValueError(
                    f"data.path: {file} names {len(names)} classes, and the shards hold the label "
                    f"{strange[0]}; mend it or remove it"
                )
            return [name.strip() for name in names]
    return None
