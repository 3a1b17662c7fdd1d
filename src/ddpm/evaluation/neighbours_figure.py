"""Samples beside the training images that are nearest to them."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ddpm.evaluation.measures.neighbours import nearest
from ddpm.sampling.figures.layout import GAP, LINE, MARGIN, Sheet, cell_size, pixels, snapped
from ddpm.sampling.figures.style import SMALL

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ddpm.data.images import ImageSet


def found(images: Tensor, training: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k nearest of each by their pixels in [0, 1]: distances float64 [N, k], and which they are, int64.

    Args:
        images: uint8 [N, C, H, W].
        training: uint8 [M, C, H, W].
        k: how many, at most M.
    """
    distances, which = nearest(images.flatten(1), training.flatten(1), k)
    return distances / 255, which


def draw(
    samples: Tensor,
    training: "ImageSet",
    held_out: "ImageSet | None",
    *,
    k: int,
    width: float,
    dpi: float,
) -> "Figure":
    """A row a sample: the sample, and its k nearest with their distances.

    Args:
        samples: uint8 [N, C, H, W].
        training: images that were trained on.
        held_out: images that were not, whose distances say what is usual; None for none.
        k: how many.
        width: inches.
        dpi: pixels an inch.
    """
    pool = torch.from_numpy(np.asarray(training.images))
    distances, which = found(samples, pool, k)
    below = "Euclidean distance of pixels in [0, 1]"
    if held_out is not None:
        usual = found(torch.from_numpy(np.asarray(held_out.images)), pool, 1)[0].median()
        below += f"; of held-out images to the nearest: {usual:.2f} (median)"
    apart = 0.16
    two = len(samples) > 1
    columns = (k + 1) * (2 if two else 1)
    room = (width - 2 * MARGIN - 2 * apart * (2 if two else 1)) / columns - GAP
    size = height, cell = cell_size(room, samples.shape[1:], dpi)
    pitch, row = snapped(cell + GAP, dpi), snapped(height + LINE + 0.04, dpi)
    rows = -(-len(samples) // (2 if two else 1))
    half = snapped((k + 1) * pitch + 2 * apart, dpi)
    top = LINE + 0.05
    sheet = Sheet(MARGIN + half * (2 if two else 1) - apart, top + rows * row + LINE + MARGIN, dpi)
    for side in range(2 if two else 1):
        sheet.write("sample", MARGIN + side * half + cell / 2, LINE / 2 + 0.02, fontsize=SMALL)
        middle = MARGIN + side * half + pitch + apart + k * pitch / 2
        sheet.write(f"nearest of {len(training):,} training images", middle, LINE / 2 + 0.02, fontsize=SMALL)
    for i, sample in enumerate(pixels(samples)):
        x, y = MARGIN + i // rows * half, top + i % rows * row
        sheet.place(sample, x, y, size)
        near = training.copy(which[i].numpy()).images
        for j, image in enumerate(pixels(torch.from_numpy(near))):
            at = x + (j + 1) * pitch + apart
            sheet.place(image, at, y, size)
            sheet.write(f"{distances[i, j]:.2f}", at + cell / 2, y + height + LINE / 2, fontsize=SMALL)
    sheet.write(below, MARGIN, top + rows * row + LINE / 2, ha="left", fontsize=SMALL)
    return sheet.figure
