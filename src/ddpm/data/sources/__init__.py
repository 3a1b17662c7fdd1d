"""Kinds of image sets, one a file. A source says how its images are found and read, and nothing else."""

from typing import Protocol

from ddpm.data.images import DataSet


class Source(Protocol):
    """Where images come from. Its constructor takes the keys of its yaml and reads nothing yet."""

    def read(self) -> DataSet:
        """Read the images, or what is needed to read them one by one.

        Raises:
            ValueError: where there are none; the message begins with the key that is wrong, as in
                `data.path=...`.
        """
        ...
