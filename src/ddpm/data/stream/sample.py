"""A row of a shard, whose image is still encoded."""

from typing import NamedTuple

from ddpm.data.decoding import Decoded, Encoded, decode_or_reason
from ddpm.data.shaping import Shaping

LabelValue = int | str
"""A label as the shards have it."""


class Sample(NamedTuple):
    """A row of a shard.

    Attributes:
        name: shard and row.
        image: still encoded, or the reason why there is none.
        label: None where there are no classes.
    """

    name: str
    image: Encoded | str
    label: LabelValue | None

    def decoded(self, shaping: Shaping) -> Decoded | str:
        """The image, or the reason why there is none."""
        return self.image if isinstance(self.image, str) else decode_or_reason(self.image, shaping)
