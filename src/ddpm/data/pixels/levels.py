"""From numbers of any type, as an image holds them, to levels of brightness from 0 to 255."""

import math
from typing import NamedTuple

import numpy as np

Limits = tuple[float, float]
OF_TYPE = "its type of numbers"


class Numbers(NamedTuple):
    """What an image holds.

    Attributes:
        values: [H, W, C] of 1 or 3 channels, of any type of numbers.
        limits: the lowest and the highest number that there can be; None where nothing says so.
        stated: what says so, for messages, such as "its MaxSampleValue".
        inverted: the lowest number is white, and the highest black.
        opacity: [H, W] in [0, 1]; None is opaque everywhere.
        whole: False where no more than the upper byte of each number could be read.
    """

    values: np.ndarray
    limits: Limits | None
    stated: str = OF_TYPE
    inverted: bool = False
    opacity: np.ndarray | None = None
    whole: bool = True


def levels(numbers: Numbers, value_range: Limits | None = None) -> tuple[np.ndarray, Limits, Limits]:
    """Levels uint8 [H, W, C]; the lowest and the highest number; the ends of their range.

    A level is round(255 (x - black) / (white - black)); what is not opaque is laid over white.

    Args:
        numbers: of the image.
        value_range: is instead of their limits.

    Raises:
        ValueError: where nothing says which numbers are black and white, or a number lies beyond them.
    """
    values = numbers.values
    if not numbers.whole and (value_range or numbers.stated != OF_TYPE):
        raise ValueError(
            "only the upper byte of each of its numbers can be read here, too little for a range of its own; "
            "save it as PNG"
        )
    limits = value_range or numbers.limits
    lowest, highest = values.min().item(), values.max().item()  # numpy would round the limits to their type
    held = " to ".join(dict.fromkeys(f"{number:.6g}" for number in (lowest, highest)))
    if limits is None:
        raise ValueError(
            f"numbers of type {values.dtype}, here {held}, and nothing says which are "
            "black and white; say it, as in data.value_range=[0,1]"
        )
    for found in (lowest, highest):
        if not limits[0] <= found <= limits[1]:  # so with NaN
            stated = "data.value_range" if value_range else numbers.stated
            if math.isnan(found):
                do = "mend or remove it"
            else:
                do = "widen it" if value_range else "name its range by data.value_range"
            raise ValueError(f"it holds {held}, beyond {stated}, {limits[0]:.6g} to {limits[1]:.6g}; {do}")
    black, white = limits[::-1] if numbers.inverted else limits
    # float32 holds every number of 16 bits, and 255 times it.
    numbers_as = "f4" if values.dtype.itemsize <= 2 else "f8"
    scaled = (values.astype(numbers_as) - black) * 255 / (white - black)
    if numbers.opacity is not None:
        opacity = numbers.opacity[..., None]
        scaled = scaled * opacity + 255 * (1 - opacity)
    return (scaled + 0.5).astype(np.uint8), (float(lowest), float(highest)), limits
