"""A row of a shard, whose image is still encoded, and what a shard holds in all."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ddpm.data.columns import Image, LabelValue, decoded
from ddpm.data.pixels.decoding import Decoded
from ddpm.data.pixels.shaping import Shaping


class Sample(NamedTuple):
    """A row of a shard.

    Attributes:
        name: shard and row.
        image: still encoded, or the reason why there is none.
        label: None where there are no classes.
    """

    name: str
    image: Image | str
    label: LabelValue | None

    def decoded(self, shaping: Shaping) -> Decoded | str:
        """The image, or the reason why there is none."""
        return decoded(self.image, shaping)


@dataclass
class Counted:
    """What a shard holds.

    Attributes:
        rows: how many.
        unlabelled: rows without a label.
        labels: every label that occurs.
        image_column: of parquet.
        label_columns: where labels stand: columns, or suffixes or keys of files beside the images.
        labels_from: the same, for people.
        captions: where there are captions, for people.
        classes: names of labels 0, 1, ..., where the shard says them.
        why: its labels are no classes; "" where they are, or where there are none.
        several: whether some samples have several images.
    """

    rows: int = 0
    unlabelled: int = 0
    labels: set[LabelValue] = field(default_factory=set)
    image_column: str | None = None
    label_columns: set[str] = field(default_factory=set)
    labels_from: set[str] = field(default_factory=set)
    captions: set[str] = field(default_factory=set)
    classes: list[str] | None = None
    why: str = ""
    several: bool = False

    def add(self, label: LabelValue | None) -> None:
        """Count a row."""
        self.rows += 1
        if label is None:
            self.unlabelled += 1
        else:
            self.labels.add(label)
