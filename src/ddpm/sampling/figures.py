"""Pictures of samples: what a person looks at to see how a run is going."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddpm.sampling.drawing import labels_of
from ddpm.sampling.model import Model

CELL = 64
"""Pictures smaller than this many pixels are enlarged in grids, by a whole factor."""

CAPTION = 14
"""Height in pixels of what stands above a picture."""

MOST_COLUMNS = 16
"""Pictures a row in which each column shows a class of its own."""


def to_uint8(x_0: Tensor) -> Tensor:
    """[-1, 1] to bytes: float [..., H, W] to uint8 of the same shape, -1 to 0 and 1 to 255, rounded."""
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def grid(
    images: Tensor,
    *,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    padding: int = 2,
    background: int = 64,
) -> np.ndarray:
    """Lay pictures out in rows.

    Args:
        images: uint8 [N, C, H, W] with 1 or 3 channels.
        captions: N, what stands above each.
        columns: pictures a row; by default the grid is nearly square.
        padding: pixels between pictures.
        background: grey of what is between them.

    Returns:
        uint8 [height, width, 3]; pixels of pictures are as they were.
    """
    pictures = images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    factor = max(1, CELL // max(pictures.shape[1:3]))
    pictures = pictures.repeat(factor, axis=1).repeat(factor, axis=2)
    n, height, width, _ = pictures.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    above = 0 if captions is None else CAPTION
    pitch = (above + height + padding, width + padding)
    canvas = np.full((padding + rows * pitch[0], padding + columns * pitch[1], 3), background, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = padding + i // columns * pitch[0], padding + i % columns * pitch[1]
        if captions is not None:
            canvas[top : top + above, left : left + width] = _caption(captions[i], width, background)
        canvas[top + above : top + above + height, left : left + width] = picture
    return canvas


def _caption(text: str, width: int, background: int) -> np.ndarray:
    """A line of text, cut to fit: uint8 [CAPTION, width, 3]."""
    font = ImageFont.load_default(CAPTION - 3)
    while text and font.getlength(text) > width - 2:
        text = text[:-1]
    strip = Image.new("RGB", (width, CAPTION), (background,) * 3)
    ImageDraw.Draw(strip).text((width / 2, CAPTION / 2), text, fill="white", font=font, anchor="mm")
    return np.asarray(strip)


def sheet(module: Model, drawn: Tensor, labels: Sequence[int] | None = None) -> np.ndarray:
    """A grid of what a model drew, with the names of the classes.

    Args:
        module: that drew them.
        drawn: float [N, C, H, W] in [-1, 1], images 0 ... N-1.
        labels: the classes that they took in turn; by default every class.

    Returns:
        uint8 [height, width, 3].
    """
    told = labels_of(module, range(len(drawn)), labels)
    if told is None:
        return grid(to_uint8(drawn))
    turn = len(labels or module.classes)
    return grid(
        to_uint8(drawn),
        captions=["" if label < 0 else module.classes[label] for label in told],
        columns=turn if 1 < turn <= MOST_COLUMNS else None,
    )
