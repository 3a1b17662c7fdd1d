"""A grid of images that a run is trained on."""

from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.data.batches import Batch
from ddpm.sampling.figures import channels_said, grid, size_shown, to_uint8, with_condition
from ddpm.sampling.seen import seen, seen_said, seen_shape
from ddpm.training.callbacks.at_start import AtStart
from ddpm.training.callbacks.shown import FOLDER, show

SIDE = 1024
"""Pixels, about, that the grid may be wide: of large images it has fewer."""


class DataImages(AtStart):
    """Shows images of the first batch as the network sees them: cut, resized or mirrored as the data say,
    with the images that they are conditioned on and the classes that it is told: `data/images`, and
    `figures/images.png`.

    Args:
        n: images, at most; fewer where they are large, or the leader's part of a batch has fewer.

    Raises:
        ValueError: where it is below 1.
    """

    name: ClassVar[str] = "images"
    condition: Tensor | None = None

    def __init__(self, n: int = 64):
        super().__init__()
        if n < 1:
            raise ValueError(f"n={n} must be at least 1")
        self.n = n

    def _draw(self, trainer: Trainer, module: Any, batch: Any) -> None:
        condition = batch.condition if isinstance(batch, Batch) else None
        self.condition = None if condition is None else condition.image
        super()._draw(trainer, module, batch)
        self.condition = None

    def draw(self, trainer: Trainer, module: Any, x_0: Tensor, names: list[str]) -> None:
        sides = list(size_shown(seen_shape(module)))
        if self.condition is not None:
            sides[1] += 1 + size_shown(self.condition.shape[1:])[1]
        columns = max(1, SIDE // max(sides))
        n = min(self.n, columns**2)
        images, beside = seen(module, x_0[:n]), ""
        if self.condition is not None:
            images = with_condition(images, to_uint8(self.condition[:n]))
            beside = f", each with its condition to the right{channels_said(self.condition.shape[1:])}"
        picture = grid(images, captions=names[:n] if any(names) else None)
        caption = (
            f"{min(n, len(x_0))} training images of the first batch, as the network sees them"
            f"{seen_said(module)}{beside}"
        )
        show(trainer, "data/images", picture, Path(FOLDER, "images.png"), caption)
