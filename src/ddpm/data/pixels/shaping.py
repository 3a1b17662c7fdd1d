"""How images of any size and number type become bytes of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass

RESIZES = ("lanczos", "bicubic", "box", "nearest")
LARGEST = 8192
"""Pixels a side; one image of more takes gigabytes while it is resized."""

MOST_CHANNELS = 255

CROPS = ("center", "random", "none")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Shaping:
    """What is asked of every image.

    Attributes:
        size: (height, width) in pixels; None leaves images as large as they are.
        channels: 1 for grey, 3 for colour, or as many as an image must have, which are taken as they are.
            None is 1 where red, green and blue are equal everywhere, 3 for other colours, else as many as
            there are.
        resize: the filter, of `RESIZES`; all but `nearest` are antialiased.
        crop: the part of an image that is kept, of `CROPS`.
        value_range: the numbers that become black and white; None is what the file or the number type says.
        side: the half of an image that is taken, of `SIDES`; None is all of it.
    """

    size: tuple[int, int] | None = None
    channels: int | None = None
    resize: str = "lanczos"
    crop: str = "center"
    value_range: tuple[float, float] | None = None
    side: str | None = None

    @property
    def planes(self) -> int | None:
        """How many channels an image must have that is taken as it is; None where it is grey or in colour, or
        nothing is asked.
        """
        return None if self.channels in (1, 3) else self.channels

    @property
    def stored(self) -> tuple[int, int] | None:
        """(height, width) that images are kept at: an eighth more where each time another part is shown, so
        that seven eighths of a side are seen at once, as in the field's Resize(256) and RandomCrop(224).
        """
        if self.size is None or self.crop != "random":
            return self.size
        height, width = (-(-side * 8 // 7) for side in self.size)
        return height, width

    @property
    def window(self) -> tuple[int, int] | None:
        """(height, width) of the part of a kept image that is shown at a time; None where it is all of it."""
        return self.size if self.crop == "random" else None


def parse_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width) in pixels from one number, for a square, or from two.

    Raises:
        ValueError: where it is neither, or a number is below 1.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if (
        isinstance(size, str)
        or not isinstance(size, Sequence)
        or len(size) != 2
        or not all(type(side) is int and side >= 1 for side in size)
    ):
        raise ValueError(
            f"data.image_size={image_size} must be a whole number of pixels, at least 1, or [height, width]"
        )
    if max(size) > LARGEST:
        raise ValueError(f"data.image_size={image_size}: at most {LARGEST:,} pixels a side")
    return size[0], size[1]


def parse_range(value_range: Sequence[float] | None) -> tuple[float, float] | None:
    """(lowest, highest) number of images, as floats.

    Raises:
        ValueError: where they are not two finite numbers in ascending order.
    """
    if value_range is None:
        return None
    numbers = [] if isinstance(value_range, str) else list(value_range)
    if (
        len(numbers) != 2
        or not all(type(number) in (int, float) and abs(number) < float("inf") for number in numbers)
        or not numbers[0] < numbers[1]
    ):
        raise ValueError(
            f"data.value_range={value_range} must be [lowest, highest], the numbers of black and "
            "white, as in [0, 1]"
        )
    return float(numbers[0]), float(numbers[1])


def check_channels(channels: int | None) -> None:
    """Refuse, with ValueError, what is neither a number of channels nor None."""
    if channels is not None and (type(channels) is not int or not 1 <= channels <= MOST_CHANNELS):
        raise ValueError(
            f"data.channels={channels} must be 1 (grey), 3 (colour), another number of channels up to "
            f"{MOST_CHANNELS}, or null (1 if every image is grey, else as many as there are)"
        )
