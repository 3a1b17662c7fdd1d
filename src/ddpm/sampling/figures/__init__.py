"""Grids of images: the pictures that a person looks at to see how a run is going.

The modules of this package are figures by matplotlib, one a file, with what they have in common.
"""

import io
import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddpm.sampling.captions import CAPTION, caption, legible, text_width
from ddpm.sampling.drawing import labels_of
from ddpm.sampling.model import Conditions, Model

CELL = 64
"""Images smaller than this many pixels are enlarged in grids, by a whole factor."""

SEEN = 1000
"""Pixels to which a screen reduces a wider grid, whose captions are larger for it."""

LOGGED = 256
"""Pixels that a logger shows of an image's side, where it has twice as many or more."""

BETWEEN_CHANNELS = 96
"""Grey of the line between channels that stand side by side."""

SPREAD = 3.0
"""The channels of latents are seen from minus this (black) to this (white): they deviate by about 1."""

MOST_CAPTION = 180
"""Pixels that what stands before the rows of a table may take."""

MOST_COLUMNS = 16
"""Images a row in which each column shows a class of its own."""


def to_uint8(x_0: Tensor) -> Tensor:
    """[-1, 1] to bytes: float [..., H, W] to uint8 of the same shape, -1 to 0 and 1 to 255, rounded. Bytes
    stay as they are.
    """
    if x_0.dtype == torch.uint8:
        return x_0
    return ((x_0.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def side_by_side(images: Tensor) -> Tensor:
    """Images that a person can see: uint8 [..., 1 or 3, H, W] as they are; of other channels each in grey,
    side by side from the first on, with a line between them: [..., 1, H, C W + C - 1].
    """
    channels, height, width = images.shape[-3:]
    if channels in (1, 3):
        return images
    parts = images.new_full((*images.shape[:-3], height, channels, width + 1), BETWEEN_CHANNELS)
    parts[..., :width] = images.movedim(-3, -2)
    return parts.flatten(-2)[..., None, :, :-1]


def with_condition(images: Tensor, condition: Tensor) -> Tensor:
    """Images, each with the image that it is conditioned on to its right: uint8 [N, 1 or 3, H, W'] of uint8
    [N, C, H, W] and [N, C', H, W]; see `side_by_side`.
    """
    parts = [side_by_side(images), side_by_side(condition)]
    channels = max(part.shape[1] for part in parts)
    own, other = (part.expand(-1, channels, -1, -1) for part in parts)
    return torch.cat([own, own.new_full((*own.shape[:3], 1), BETWEEN_CHANNELS), other], 3)


def size_shown(image_shape: Sequence[int]) -> tuple[int, int]:
    """(height, width) that images of (channels, height, width) have side by side."""
    channels, height, width = image_shape
    return height, width if channels in (1, 3) else channels * (width + 1) - 1


def channels_said(image_shape: Sequence[int]) -> str:
    """For captions: what is seen of images that are neither grey nor in colour; "" for others."""
    channels = image_shape[0]
    return "" if channels in (1, 3) else f"; channels 0 to {channels - 1} of each side by side"


def png(picture: np.ndarray) -> bytes:
    """A file of a picture: uint8 [H, W] or [H, W, C]; more channels than colours stand side by side."""
    if picture.shape[2:] not in ((), (1,), (3,)):
        picture = side_by_side(torch.tensor(picture).permute(2, 0, 1)).squeeze(0).numpy()
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(2) if picture.shape[2:] == (1,) else picture).save(file, "PNG")
    return file.getvalue()


def enlarged(images: Tensor) -> np.ndarray:
    """In colour, small ones larger by a whole factor: uint8 [N, h, w, 3] of uint8 [N, C, H, W]. Channels that
    are no colours stand side by side.
    """
    cells = side_by_side(images.cpu()).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    factor = max(1, CELL // max(images.shape[2:]))
    return cells.repeat(factor, axis=1).repeat(factor, axis=2)


def for_loggers(images: Tensor) -> Tensor:
    """Images that are not much larger than `LOGGED`, averaged over whole pixels: uint8 [N, C, H, W] of the
    same; small ones as they are.
    """
    factor = max(1, max(images.shape[2:]) // LOGGED)
    if factor == 1:
        return images
    smaller = torch.nn.functional.avg_pool2d(images.float(), min(factor, *images.shape[2:]))
    return smaller.round().to(torch.uint8)


def grid(
    images: Tensor,
    *,
    captions: Sequence[str] | None = None,
    columns: int | None = None,
    padding: int = 2,
    background: int = 64,
) -> np.ndarray:
    """Lay images out in rows.

    Args:
        images: uint8 [N, C, H, W]; see `side_by_side`.
        captions: N, what stands above each; shortened to fit.
        columns: images a row; by default the grid is nearly square.
        padding: pixels between images.
        background: grey of what is between them.

    Returns:
        uint8 [height, width, 3]; the values of images are as they were.
    """
    cells = enlarged(images)
    n, height, width, _ = cells.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    rows = math.ceil(n / columns)
    factor = max(1, min(width // CELL, round(columns * width / SEEN)))
    above = 0 if captions is None else factor * CAPTION
    pitch = (above + height + padding, width + padding)
    canvas = np.full((padding + rows * pitch[0], padding + columns * pitch[1], 3), background, np.uint8)
    for i, cell in enumerate(cells):
        top, left = padding + i // columns * pitch[0], padding + i % columns * pitch[1]
        if captions is not None:
            canvas[top : top + above, left : left + width] = caption(
                captions[i], width, background, factor=factor
            )
        canvas[top + above : top + above + height, left : left + width] = cell
    return canvas


def table(cells: Tensor, *, headings: Sequence[str], captions: Sequence[str]) -> np.ndarray:
    """Lay images out in rows and columns that say what they are.

    Args:
        cells: uint8 [R, K, C, H, W]; see `side_by_side`.
        headings: K, what stands above each column; shortened to fit.
        captions: R, what stands before each row; shortened where it is long.

    Returns:
        uint8 [height, width, 3]; the values of images are as they were.
    """
    padding, background = 2, 64
    left = min(MOST_CAPTION, max(map(text_width, captions))) + padding if any(captions) else 0
    images = [enlarged(row) for row in cells]
    height, width = images[0].shape[1:3]
    pitch = max(height, CAPTION) + padding, width + padding
    top = padding + (CAPTION if any(headings) else 0)
    shape = (top + len(images) * pitch[0], left + padding + len(headings) * pitch[1], 3)
    canvas = np.full(shape, background, np.uint8)
    for column, text in enumerate(headings if any(headings) else ()):
        first = left + padding + column * pitch[1]
        canvas[:CAPTION, first : first + width] = caption(text, width, background)
    for i, (row, text) in enumerate(zip(images, captions, strict=True)):
        first = top + i * pitch[0]
        if left:
            middle = first + (pitch[0] - padding - CAPTION) // 2
            canvas[middle : middle + CAPTION, padding : padding + left - padding] = caption(
                text, left - padding, background, "l"
            )
        for column, cell in enumerate(row):
            start = left + padding + column * pitch[1]
            canvas[first : first + height, start : start + width] = cell
    return canvas


def sheet(
    module: Model,
    drawn: Tensor,
    labels: Sequence[int] | None = None,
    conditions: Conditions | None = None,
) -> np.ndarray:
    """A grid of what a model sampled, with the names of the classes; beside each image what it is conditioned
    on, as far as it can be seen, and the image that this belongs to, where it is known.

    Args:
        module: that sampled them.
        drawn: float [N, C, H, W] in [-1, 1], or bytes as they are seen; images 0 ... N-1.
        labels: the classes that they took in turn; by default as `labels_of` says.
        conditions: that they were drawn under; by default the model's own.

    Returns:
        uint8 [height, width, 3].
    """
    conditions = conditions or module.conditions
    shown = labels_of(module, range(len(drawn)), labels, conditions)
    if module.is_conditioned and conditions is not None and module.image_shape[0] in (1, 3):
        names = None if shown is None or module.classes is None else legible(module.classes)
        named = [] if names is None else ["" if label < 0 else names[label] for label in shown or ()]
        return _beside_conditions(module, to_uint8(drawn), conditions, named)
    if shown is None or module.classes is None or max(shown) < 0:
        return grid(to_uint8(drawn))
    names = legible(module.classes)
    turn = len(labels or names)
    return grid(
        to_uint8(drawn),
        captions=["" if label < 0 else names[label] for label in shown],
        columns=_whole_turns(len(drawn), turn) if 1 < turn <= MOST_COLUMNS else None,
    )


def _beside_conditions(
    module: Model, drawn: Tensor, conditions: Conditions, names: Sequence[str]
) -> np.ndarray:
    """A grid in which each image stands between its condition and the image that this belongs to.

    Args:
        module: that drew them.
        drawn: uint8 [N, C, H, W], C 1 or 3; images 0 ... N-1.
        conditions: that they were drawn under.
        names: of their classes, N; or none.
    """
    n = len(drawn)
    condition, truth = conditions(range(n)), conditions.truth(range(n))
    parts = {"sample": drawn}
    if condition.image is not None:
        parts = {"condition": seen_condition(condition.image, drawn.shape[1]), **parts}
    if truth is not None:
        parts["truth"] = to_uint8(truth)
    parts = {  # what is drawn may be reduced for a logger
        name: part if part.shape[2:] == drawn.shape[2:] else for_loggers(part) for name, part in parts.items()
    }
    cells = torch.stack([part.cpu().expand(-1, 3, -1, -1) for part in parts.values()], dim=1)
    across = max(1, min(n, round(math.sqrt(n / len(parts)))))
    captions = [name if i < across else "" for i in range(n) for name in parts]
    own = list(parts).index("sample")
    numbers = None if condition.vector is None else _as_kept(module, condition.vector)
    for i in range(n):
        words = [*names[i : i + 1]]
        if numbers is not None:
            words.append(", ".join(f"{value:.3g}" for value in numbers[i].tolist()))
        if words:
            captions[i * len(parts) + own] = "; ".join(words)
    return grid(cells.flatten(0, 1), captions=captions, columns=across * len(parts))


def _as_kept(module: Model, vector: Tensor) -> Tensor:
    """Numbers [N, D] that a network sees as its data keep them, where it is known how these are spread."""
    about = (getattr(module, "data", None) or {}).get("condition") or {}
    if not {"mean", "std"} <= about.keys():
        return vector
    mean, std = (torch.tensor(about[name], device=vector.device) for name in ("mean", "std"))
    return vector * std + mean


def seen_condition(image: Tensor, channels: int) -> Tensor:
    """What a person sees of the image that a network is conditioned on: uint8 [N, 1 or 3, H, W] of float
    [N, C', H, W]. Of a masked one it is the image without the mask, which is its last channel; where channels
    are no colours, their mean.

    Args:
        image: in [-1, 1].
        channels: of the images that are drawn under it, 1 or 3.
    """
    if image.shape[1] == channels + 1:
        image = image[:, :channels]
    return to_uint8(image if image.shape[1] in (1, 3) else image.mean(1, keepdim=True))


def _whole_turns(n: int, turn: int) -> int:
    """Columns in which each class has columns of its own: as many turns as keep the grid nearly square."""
    return turn * max(1, round(math.sqrt(n) / turn))
