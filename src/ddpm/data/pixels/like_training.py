"""A picture of somebody's own, shaped as the images that a run was trained on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ddpm.data.images import ImageSet
from ddpm.data.pixels.shaping import CROPS, RESIZES, Shaping, parse_range


def shaping_of(image_shape: tuple[int, int, int], data: Mapping[str, Any] | None) -> Shaping:
    """What was asked of the images of a run, as far as its configuration says it.

    Args:
        image_shape: (channels, height, width) of what the run draws.
        data: what its configuration says under `data`.
    """
    channels, height, width = image_shape
    data = data or {}
    settings = data["source"] if isinstance(data.get("source"), Mapping) else data
    # a source of somebody's own may mean something else by these keys
    known = {"resize": RESIZES, "crop": CROPS}
    chosen = {key: settings[key] for key, values in known.items() if settings.get(key) in values}
    try:
        value_range = parse_range(settings.get("value_range"))
    except (ValueError, TypeError):
        value_range = None
    return Shaping((height, width), channels, value_range=value_range, **chosen)


def shaped(read: Callable[[Shaping], np.ndarray], shaping: Shaping) -> np.ndarray:
    """A picture as the images of the run are: uint8 [C, H, W]. One of their size stays as it is; where
    training shows another part each time, the middle is taken.

    Args:
        read: gives the picture, uint8 [C, H, W], as it is asked for.
        shaping: of the run's images.
    """
    whole = read(replace(shaping, size=None))
    assert shaping.size is not None
    if whole.shape[1:] == shaping.size:
        return whole
    return ImageSet(read(shaping)[None]).centre(shaping.size).images[0].copy()
