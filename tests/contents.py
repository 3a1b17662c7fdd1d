"""What a data set holds, image by image, whether it was prepared or is streamed."""

import numpy as np

from ddpm.data.images import DataSet, ImageSet
from ddpm.data.pixels.decoding import Decoded
from ddpm.data.stream.images import StreamedImages

Image = tuple[np.ndarray, str | None]
"""Pixels uint8 [C, H, W], and the name of the class."""


def contents(data_set: DataSet) -> tuple[list[Image], list[Image]]:
    """The images to train on and those held out, each in their order."""
    train = data_set.train
    shown = _streamed(train, data_set) if isinstance(train, StreamedImages) else _held(train, data_set)
    return shown, _held(data_set.validation, data_set)


def _held(part: ImageSet, data_set: DataSet) -> list[Image]:
    names = [None] * len(part) if part.labels is None else [data_set.classes[label] for label in part.labels]
    return list(zip(part.images, names, strict=True))


def _streamed(train: StreamedImages, data_set: DataSet) -> list[Image]:
    found = []
    for shard, held_out in enumerate(train.held_out):
        for sample in train.shards.read(shard, int(held_out)):
            decoded = sample.decoded(train.shaping)
            assert isinstance(decoded, Decoded), decoded
            label = None if data_set.classes is None else data_set.classes[train.shards.label_of(sample)]
            found.append((decoded.pixels, label))
    return found
