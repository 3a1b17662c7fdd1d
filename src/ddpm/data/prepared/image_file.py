"""A file of images of one shape, one after the other, without a header."""

from pathlib import Path

import numpy as np

from ddpm.data.skipped import printable


class ImageFile:
    """Is written image by image, each at its position.

    By plain writes, since a full disk then is an error; in a memory map it would kill the process.

    Args:
        path: of the file, which is made anew.
        channels: of every image; None is 1 if every image has one channel, 3 if one has three, else as many
            as the first has.
        key: that says `channels`, for messages.
    """

    def __init__(self, path: Path, channels: int | None, key: str = "data.channels"):
        self.path = path
        self.key = key
        self.file = path.open("w+b", buffering=0)
        self.channels = channels
        self.size: tuple[int, int] | None = None
        self.is_colour = channels == 3

    @property
    def image_bytes(self) -> int:
        """Of each image while it is written."""
        height, width = self.size or (0, 0)
        return (self.channels or 3) * height * width

    def put(self, position: int, pixels: np.ndarray, name: str) -> None:
        """Write uint8 [C, H, W]; `name` is for the error where its size is another than that of the first."""
        height, width = pixels.shape[1:]
        if self.size is None:
            self.size = height, width
            if self.channels is None and len(pixels) not in (1, 3):
                self.channels = len(pixels)
        if len(pixels) not in (1, self.channels or 3):
            raise ValueError(
                f"{self.key} is not set, and the images differ in it: {printable(name)} has {len(pixels)} "
                f"channels, those before it {self.channels or 'are grey or in colour'}; leave one kind out"
            )
        if (height, width) != self.size:
            h, w = self.size
            raise ValueError(
                f"data.image_size is not set, and the images differ in size: {printable(name)} is "
                f"{height}x{width}, those before it {h}x{w}; set it, as in data.image_size={min(h, w)}"
            )
        self.is_colour |= len(pixels) == 3
        self._write(
            position * self.image_bytes,
            np.broadcast_to(pixels, (self.channels or 3, height, width)).tobytes(),
        )

    def finish(self, filled: np.ndarray) -> tuple[int, int, int, int]:
        """Close the gaps, and drop colour where there is none.

        Args:
            filled: int64 [N], ascending, the positions that hold an image.

        Returns:
            the shape [N, C, H, W] of what is left.
        """
        colours = 3 if self.is_colour else 1
        channels = colours if self.channels in (None, 1, 3) else self.channels
        assert channels is not None
        height, width = self.size or (1, 1)
        stored, final = self.image_bytes, channels * height * width
        # Each image moves towards the beginning, over nothing that is still to be read.
        for index, position in enumerate(filled.tolist()):
            if index * final != position * stored:
                self.file.seek(position * stored)
                self._write(index * final, self.file.read(final))
        self.file.truncate(len(filled) * final)
        return len(filled), channels, height, width

    def append_channels(self, other: "ImageFile", count: int, shape: tuple[int, int, int], more: int) -> None:
        """Put the channels of another file's images after those of these, in place.

        Args:
            other: finished, with images as many and as large.
            count: of the images.
            shape: (channels, height, width) of each, finished.
            more: channels of each of the other file.
        """
        channels, height, width = shape
        own, added = channels * height * width, more * height * width
        # From the last one on, each image moves towards the end, over nothing that is still to be read.
        for index in reversed(range(count)):
            self.file.seek(index * own)
            other.file.seek(index * added)
            joined = self.file.read(own) + other.file.read(added)
            self._write(index * (own + added), joined)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _write(self, offset: int, contents: bytes) -> None:
        self.file.seek(offset)
        while contents:
            contents = contents[self.file.write(contents) :]
