"""From numbers of any type, as an image holds them, to levels of brightness from 0 to 255."""

from typing import NamedTuple

import numpy as np

Limits = tuple[float, float]
"""The number that is black and the number that is white; the first may be the higher one."""


class Numbers(NamedTuple):
    """What an image holds.

    Attributes:
        values: [H, W, C] of 1 or 3 channels, of any type of numbers.
        limits: the numbers that are black and white; None where nothing says so.
        stated: what says so, for messages, such as "its MaxSampleValue".
        opacity: float32 [H, W] in [0, 1]; None is opaque everywhere.
    """

    values: np.ndarray
    limits: Limits | None
    stated: str = "its type of numbers"
    opacity: np.ndarray | None = None


def levels(numbers: Numbers, value_range: Limits | None = None) -> tuple[np.ndarray, Limits, Limits]:
    """Levels uint8 [H, W, C], the lowest and the highest number, and the numbers that became black and white.

    A level is round(255 (x - black) / (white - black)); what is not opaque is laid over white.

    Args:
        numbers: of the image.
        value_range: the numbers that become black and white, whatever the image says.

    Raises:
        ValueError: where nothing says which numbers are black and white, or a number lies beyond them.
    """
    values = numbers.values
    if values.dtype.kind not in "buif":
        raise ValueError(f"numbers of type {values.dtype} are no levels of brightness")
    limits = value_range or numbers.limits
    if limits is None:
        raise ValueError(
            f"numbers of type {values.dtype}, and nothing says which are black and white; say it, as in "
            "data.value_range=[0, 1]"
        )
    lowest, highest = float(values.min()), float(values.max())
    for found in (lowest, highest):
        if not min(limits) <= found <= max(limits):  # true of NaN too
            by = "data.value_range" if value_range else numbers.stated
            raise ValueError(
                f"it holds {found:g}, beyond {by} [{min(limits):g}, {max(limits):g}]; state the numbers of "
                "black and white by data.value_range"
            )
    black, white = limits
    # Differences of numbers of up to 16 bits are exact in float32.
    precision = np.float32 if values.dtype.itemsize <= 2 and value_range is None else np.float64
    scaled = (values.astype(precision) - precision(black)) * precision(255 / (white - black))
    if numbers.opacity is not None:
        opacity = numbers.opacity[..., None]
        scaled = scaled * opacity + 255 * (1 - opacity)
    return (scaled + precision(0.5)).astype(np.uint8), (lowest, highest), limits
