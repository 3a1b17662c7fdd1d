"""How samples come about, once a run has learned to draw them."""

import logging
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.diffusion.samplers import DDIM, Trajectory, evenly_spread
from ddpm.sampling.captions import legible
from ddpm.sampling.drawing import Drawing, labels_of
from ddpm.sampling.figures import denoising
from ddpm.sampling.figures.style import styled
from ddpm.sampling.seen import seen, seen_said
from ddpm.training.callbacks.drawing import at_once, drawing_ranks, drawn, manner
from ddpm.training.callbacks.interruption import end_if_asked
from ddpm.training.callbacks.shown import DPI, WIDTH, show_figure, show_film, spared

log = logging.getLogger(__name__)

ROWS = 3
"""Samples of the figure; the film has all."""

COLUMNS = 8
"""Steps of the figure, beside the samples themselves."""


class Denoising(Callback):
    """Shows the way from noise to a few samples when training ends: x_t, and beneath it the x_0 that is
    predicted there: `samples/denoising`, and the same as an animation, `samples/denoising_film`; in the
    directory `figures/denoising.png` and `figures/denoising_film.gif`.

    It is drawn with the averaged weights, by DDIM, whose way is smooth. Sample i starts from noise keyed by
    (seed, i).

    Args:
        n: samples of the animation, at most; the figure has the first three.
        num_steps: of DDIM; fewer where the chain is shorter.
        frames: of the animation, at most, beside the one of the samples; 0 for none.
        seed: of the noise.

    Raises:
        ValueError: where a number is out of range.
    """

    def __init__(self, n: int = 6, num_steps: int = 50, frames: int = 15, seed: int = 0):
        if min(n, num_steps) < 1 or frames < 0:
            raise ValueError(
                f"n={n} and num_steps={num_steps} must be at least 1, and frames={frames} at least 0"
            )
        self.n = n
        self.num_steps = num_steps
        self.frames = frames
        self.seed = seed

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        with drawing_ranks(trainer, module) as draws:
            if draws:
                self._draw(trainer, module)
        end_if_asked(trainer)

    def _draw(self, trainer: Trainer, module: Any) -> None:
        sampler = DDIM(min(self.num_steps, module.schedule.num_timesteps))
        try:
            drawing = Drawing(module, seed=self.seed, sampler=sampler, weights="ema")
        except ValueError as error:  # of a process that DDIM does not reverse
            log.info("Denoising: nothing is drawn: %s", error)
            return
        visited = drawing.timesteps
        shown, filmed = evenly_spread(visited, COLUMNS), evenly_spread(visited, max(1, self.frames))
        kept = Trajectory({*shown, *filmed})
        batch_size = at_once(trainer, module)
        n = min(self.n, batch_size)  # the ways of one batch are kept
        images = drawn(trainer, module, drawing, n, batch_size, kept)
        if images is None or not trainer.is_global_zero:
            return
        rows = min(ROWS, n)
        names = _names(module, rows)
        with spared("samples/denoising"), styled(texts=names):
            caption = f"step {trainer.global_step:,}: {manner(module, drawing, 'ema')}{seen_said(module)}"
            figure = denoising.draw(
                _of(module, kept, shown, rows), seen(module, images[:rows]), names, width=WIDTH, dpi=DPI
            )
            show_figure(trainer, "samples/denoising", figure, caption)
            if self.frames:
                film = denoising.film(
                    _of(module, kept, filmed, n), seen(module, images), width=WIDTH, dpi=DPI
                )
                show_film(trainer, "samples/denoising_film", film, caption)


def _of(module: Any, kept: Trajectory, timesteps: list[int], n: int) -> Trajectory:
    """Some of the steps, of the first n samples, as they are seen."""
    part = Trajectory()
    for t in timesteps:
        part(t, seen(module, kept.x_t[t][:n]), seen(module, kept.x_0[t][:n]))
    return part


def _names(module: Any, n: int) -> list[str]:
    labels: list[int] | None = labels_of(module, range(n))
    classes = [] if labels is None else legible(module.classes)
    return [""] * n if labels is None else [classes[label] for label in labels]
