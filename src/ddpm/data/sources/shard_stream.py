"""Shards of images, for sets larger than disk or memory."""

import hashlib
import itertools
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.data.images import DataSet, ImageSet, survey
from ddpm.data.pixels.decoding import Decoded
from ddpm.data.prepared.preparation import sentences
from ddpm.data.settings import ReadingSettings
from ddpm.data.skipped import Skipped
from ddpm.data.stream.images import StreamedImages
from ddpm.data.stream.shards import Shards, find_shards

SHARDS_HELD_OUT_FROM = 10

MOST_TRIED = 1000
"""Rows that are tried before shards are taken to hold no image."""


@dataclass(frozen=True)
class ShardStream(ReadingSettings):
    """Images of parquet or webdataset shards, on this disk or behind a URL, none of which is kept.

    The contract. A pass shows each of the N images to train on once; draws pass * N up to, and not with,
    (pass + 1) * N are one pass, and index i of the global batch of step s is draw s * batch_size + i, as for
    every source. Within a pass the shards are shuffled, and the images of each lane within a buffer; so a
    pass is less mixed than a permutation of all images would be. A lane is a reader of its own, which feeds
    neighbouring indices: batch_size / lanes of them.

    - Equal: the images of every step and index, for the same shards, `batch_size`, `lanes`, `buffer`,
      `validation_size` and seed, on any number of devices, nodes, workers and micro-batches; and after a
      restart at any step, which reads at most one buffer again and no earlier one.
    - Not equal: where one of these differs, or a shard is added, removed, renamed or changes its number of
      rows.
    - No device runs dry: the stream has no end, and a batch may hold the end of a pass and the beginning of
      the next.
    - An image that cannot be read is replaced by the next of its buffer that can, which that pass shows
      twice; `on_error=fail` ends the run instead.

    Devices x micro-batches must divide `lanes`, and `lanes` the batch.

    Args:
        path: a folder, a pattern such as `shards/train-*.tar`, or the same behind a protocol that `fsspec`
            knows (`hf://datasets/...`, `s3://...`).
        channels: 1 or 3.
        image_column: of parquet; None is the first column of images (see `ddpm.data.columns`).
        label_column: of parquet; of a webdataset the suffix of the files of labels, or a key of its `.json`
            files. None is a column of class labels, or one called `label` or the like; `.cls` files, else
            such a key. `none` takes no labels.
        validation_size: images that are held out: the first rows of up to ten shards of the part to validate
            on; where no name of a shard or of its folder says a part, the beginnings of up to ten shards.
        buffer: images, still encoded, that are shuffled together, over all lanes and devices; twice as many
            are held in memory.
        lanes: parts of a batch that are read side by side; None is the greatest common divisor of the batch
            and 48.
        The others: see `ReadingSettings`; `image_size` has to be given.

    Raises:
        ValueError: for settings that cannot be; from `read`, where there are no shards, one is damaged, or
            they hold no image.
    """

    path: str | Path
    _: KW_ONLY
    channels: int = 3
    image_column: str | None = None
    label_column: str | None = None
    validation_size: int = 1000
    buffer: int = 8192
    lanes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size is None:
            raise ValueError("data.image_size must be given: a stream does not know its images beforehand")
        if self.channels not in (1, 3):
            raise ValueError("data.channels must be 1 or 3: a stream does not know its images beforehand")
        if self.validation_size < 0:
            raise ValueError(f"data.validation_size={self.validation_size} must be at least 0")
        if self.lanes is not None and self.lanes < 1:
            raise ValueError(f"data.lanes={self.lanes} must be at least 1, or null")
        if self.buffer < (self.lanes or 1):
            raise ValueError(f"data.buffer={self.buffer} must be at least data.lanes={self.lanes or 1}")

    def read(self) -> DataSet:
        """The held-out images; of those to train on, only how to read them."""
        train, validation, understood, notes = find_shards(
            self.path, self, self.image_column, self.label_column
        )
        held_out = np.zeros_like(train.counts)
        if validation is not None:
            shown = _enough(validation.counts, self.validation_size)
        else:  # what is trained on keeps at least half of each shard
            shown = held_out = np.minimum(_beginnings(train.counts, self.validation_size), train.counts // 2)
            begun = int(np.count_nonzero(held_out))
            of = f"the beginning{'s' if begun > 1 else ''} of {begun:,} of these" if begun else "none"
            understood = understood._replace(validation=of)
        skipped = Skipped(self.on_error)
        streamed = StreamedImages(train, held_out, self.shaping, self.buffer, self.lanes, skipped)
        self._check_images(streamed)
        images = _decoded(validation or train, shown, streamed)
        facts: dict[str, Any] = {"shards": len(train.paths), "of": "the held-out images"}
        if len(images):
            facts |= survey([images])
        shards = [*train.identity, *(() if validation is None else ("validation", *validation.identity))]
        identity = (streamed.image_shape, train.classes, shards, self.validation_size)
        fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()[:16]
        return DataSet(
            streamed,
            images,
            train.classes,
            skipped,
            understood=[*sentences(understood, len(streamed), len(images), train.classes), *notes],
            known_facts=facts,
            known_fingerprint=fingerprint,
            window=self.shaping.window,
        )

    def _check_images(self, train: StreamedImages) -> None:
        """Refuse shards of which no row is an image, before a run begins."""
        shards = train.shards
        samples = (sample for shard in range(len(shards.paths)) for sample in shards.read(shard, 0))
        tried, reason = 0, ""
        for sample in itertools.islice(samples, MOST_TRIED):
            found = sample.decoded(train.shaping)
            if isinstance(found, Decoded):
                return
            tried, reason = tried + 1, reason or f"{sample.name}: {found}"
        rows = f"{tried:,} rows" if tried == shards.counts.sum() else f"first {tried:,} rows"
        raise ValueError(
            f"data.path={self.path}: none of the {rows} of these shards is an image ({reason}); name shards "
            "of images"
        )


def _beginnings(counts: np.ndarray, size: int, shards: int = SHARDS_HELD_OUT_FROM) -> np.ndarray:
    """int64 [S]: how many rows at the beginning of each shard make up `size` rows, or a few more, of so many
    shards.
    """
    chosen = np.unique(np.linspace(0, len(counts) - 1, shards).astype(int))
    taken = np.zeros_like(counts)
    taken[chosen] = np.minimum(-(-size // len(chosen)), counts[chosen])
    return taken


def _enough(counts: np.ndarray, size: int) -> np.ndarray:
    """int64 [S]: how many rows at the beginning of each shard make up `size` rows, or a few more, from as few
    shards as hold them; all rows where there are no more.
    """
    if counts.sum() <= size:
        return counts
    shards = SHARDS_HELD_OUT_FROM
    while (taken := _beginnings(counts, size, shards)).sum() < size and shards < len(counts):
        shards = min(2 * shards, len(counts))
    return taken


def _decoded(shards: Shards, taken: np.ndarray, like: StreamedImages) -> ImageSet:
    """The images in the first rows of some shards."""
    images, labels = [], []
    for shard in np.flatnonzero(taken):
        for sample in itertools.islice(shards.read(int(shard), 0), int(taken[shard])):
            found = sample.decoded(like.shaping)
            if isinstance(found, Decoded):
                images.append(found.pixels)
                labels.append(shards.label_of(sample))
            else:
                like.skipped.add(sample.name, found)
    stacked = np.stack(images) if images else np.empty((0, *like.image_shape), np.uint8)
    return ImageSet(stacked, None if shards.classes is None else np.array(labels, np.int64))
