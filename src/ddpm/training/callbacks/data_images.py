"""A grid of images that a run is trained on."""

from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.sampling.figures import grid, size_shown
from ddpm.sampling.seen import seen, seen_said, seen_shape
from ddpm.training.callbacks.at_start import AtStart
from ddpm.training.callbacks.shown import FOLDER, show

SIDE = 1024
"""Pixels, about, that the grid may be wide: of large images it has fewer."""


class DataImages(AtStart):
    """Shows images of the first batch as the network sees them: cut, resized or mirrored as the data say,
    with the classes that it is told: `data/images`, and `figures/images.png`.

    Args:
        n: images, at most; fewer where they are large, or the leader's part of a batch has fewer.

    Raises:
        ValueError: where it is below 1.
    """

    name: ClassVar[str] = "images"

    def __init__(self, n: int = 64):
        super().__init__()
        if n < 1:
            raise ValueError(f"n={n} must be at least 1")
        self.n = n

    def draw(self, trainer: Trainer, module: Any, x_0: Tensor, names: list[str]) -> None:
        columns = max(1, SIDE // max(size_shown(seen_shape(module))))
        n = min(self.n, columns**2)
        picture = grid(seen(module, x_0[:n]), captions=names[:n] if any(names) else None)
        caption = (
            f"{min(n, len(x_0))} training images of the first batch, as the network sees them"
            f"{seen_said(module)}"
        )
        show(trainer, "data/images", picture, Path(FOLDER, "images.png"), caption)
