"""Pictures of samples: what a person looks at to see how a run is going."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddpm.diffusion.samplers import Sampler
from ddpm.training.interruption import Interrupted, Interruption
from ddpm.training.loggers import WandbLogger
from ddpm.training.module import DDPM
from ddpm.training.sampling import announced_sampling

log = logging.getLogger(__name__)

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


def sheet(module: DDPM, drawn: Tensor, labels: Sequence[int] | None = None) -> np.ndarray:
    """A grid of what a model drew, with the names of the classes.

    Args:
        module: that drew them.
        drawn: float [N, C, H, W] in [-1, 1], images 0 ... N-1.
        labels: the classes that they took in turn; by default every class.

    Returns:
        uint8 [height, width, 3].
    """
    told = module.labels_of(range(len(drawn)), labels)
    if told is None:
        return grid(to_uint8(drawn))
    turn = len(labels or module.classes)
    return grid(
        to_uint8(drawn),
        captions=["" if label < 0 else module.classes[label] for label in told],
        columns=turn if 1 < turn <= MOST_COLUMNS else None,
    )


def _received(trainer: Trainer) -> int:
    """The signal that asks this process to end, or 0."""
    return max((c.received for c in trainer.callbacks if isinstance(c, Interruption)), default=0)


class SampleGrids(Callback):
    """Draws the same noise again and again as the network learns: `samples/step_XXXXXXXX.png`, and in W&B.

    Cell i starts from noise keyed by (seed, i), at every step of every run. Grids during training use a fast
    sampler and the averaged weights; the last one uses the run's own sampler.

    Args:
        sampler: of the grids during training.
        every_n_steps: optimizer steps between grids.
        n: pictures in a grid.
        seed: of the noise.
        final: draw a last grid with the run's own sampler when training ends.
    """

    def __init__(
        self,
        sampler: Sampler,
        every_n_steps: int = 10_000,
        n: int = 64,
        seed: int = 0,
        final: bool = True,
    ):
        if every_n_steps < 1 or n < 1:
            raise ValueError("callbacks.samples: every_n_steps and n must be at least 1")
        self.sampler = sampler
        self.every_n_steps = every_n_steps
        self.n = n
        self.seed = seed
        self.final = final

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        at_boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        ends = step == trainer.max_steps and self.final
        if at_boundary and step % self.every_n_steps == 0 and not ends:
            self._draw(trainer, module, self.sampler)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.final:
            self._draw(trainer, module, module.sampler)
            if signum := _received(trainer):
                raise Interrupted(signum)

    def _draw(self, trainer: Trainer, module: LightningModule, sampler: Sampler) -> None:
        """Draw, save and log a grid; give up where the run is asked to end."""
        if trainer.is_global_zero:
            drawn = announced_sampling(
                module,
                range(self.n),
                seed=self.seed,
                sampler=sampler,
                stop=lambda: bool(_received(trainer)),
            )
        if trainer.is_global_zero and drawn is not None:
            picture = sheet(module, drawn)
            path = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:08d}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path)
            for logger in trainer.loggers:
                if isinstance(logger, WandbLogger):
                    logger.log_image("samples/grid", picture, step=trainer.global_step)
        trainer.strategy.barrier()
