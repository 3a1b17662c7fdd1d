"""Images that were prepared before, and are taken over by the next state of the same set."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ddpm.data.pixels.decoding import Decoded
from ddpm.data.prepared.cache import Entry
from ddpm.data.prepared.records import Records, same

RECORDS = "records.npy"
CONDITION_RECORDS = "condition_records.npy"


class Earlier:
    """The images of an entry that keeps their states; in use until it is closed.

    They are read from the file, not mapped: the system would count what was read as memory of this process.

    Args:
        entry: in use.
        conditions: not the images that are learned, but those that condition them.
    """

    def __init__(self, entry: Entry, *, conditions: bool = False):
        self.entry = entry
        rows = np.load(entry.path / (CONDITION_RECORDS if conditions else RECORDS))
        self.records = Records(rows, entry.about["condition_modes" if conditions else "modes"])
        self.first = entry.about["shape"][1] - entry.about["condition_channels"] if conditions else 0
        self.shape = tuple(entry.about["shape"][1:])
        self.file = (entry.path / "images.u8").open("rb", buffering=0)

    def find(self, states: np.ndarray) -> np.ndarray:
        """Which image each of some states, S16 [N], belongs to: int64 [N], -1 where it is none of these."""
        return same(states, self.records.rows["state"])

    def read(self, index: int) -> Decoded:
        """An image as it was read from its source."""
        size = int(np.prod(self.shape))
        self.file.seek(index * size)
        pixels = np.frombuffer(self.file.read(size), np.uint8).reshape(self.shape)
        return self.records.image(index, pixels[self.first :])

    def close(self) -> None:
        """Let go of the entry."""
        self.file.close()
        self.entry.release()


def joined(
    earlier: Earlier | None, where: np.ndarray, read: Callable[[Sequence[int]], Iterator[Decoded | str]]
) -> Iterator[Decoded | str]:
    """All images of a set in order, whether they are taken over or read.

    Args:
        earlier: holds those to take over.
        where: int64 [N], which image of `earlier` each is; -1 where it is to be read.
        read: from numbers of images, ascending, to what each is.
    """
    new = read(np.flatnonzero(where < 0).tolist())
    for index in where.tolist():
        yield next(new) if index < 0 or earlier is None else earlier.read(index)
