"""Grids of samples as the network learns."""

import logging
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer

from ddpm.diffusion.samplers import Sampler
from ddpm.runtime import writing
from ddpm.runtime.arithmetic import STEP
from ddpm.runtime.progress import Pause
from ddpm.sampling.batches import announced_sampling, images_at_once
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import png, sheet
from ddpm.training.callbacks.colours import log_colours
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import (
    end_if_asked,
    leader_alone,
    progressed,
    received,
    received_anywhere,
    together,
)
from ddpm.training.loggers import log_picture

log = logging.getLogger(__name__)

SHARE = 0.25
"""Of the arithmetic of training, which the last grid may take by the run's own sampler if final is auto."""


def in_proportion(nfe: int, n: int, steps: int, batch_size: int) -> bool:
    """Whether the last grid is worth the run's own sampler: it follows from what the run is, so that it does
    not depend on how fast a machine is, or how often a run was continued.

    Both sides count forward passes of the network for one image; a training step is worth `STEP` of them for
    each of its images.

    Args:
        nfe: evaluations of the network for a picture, by the run's own sampler.
        n: pictures in the grid.
        steps: of the training.
        batch_size: images a step, over all devices.
    """
    return nfe * n <= SHARE * STEP * steps * batch_size


class SampleGrids(EveryNSteps):
    """Draws the same noise again and again as the network learns: `samples/step_XXXXXXXX.png`, and in every
    logger that shows pictures.

    Cell i starts from noise keyed by (seed, i), at every step of every run. Grids during training use a fast
    sampler and the averaged weights; the last one uses the run's own sampler, where that is worth its time.

    Args:
        sampler: of the grids during training.
        every_n_steps: optimizer steps between grids.
        n: pictures in a grid.
        seed: of the noise.
        final: draw the last grid, when training ends, with the run's own sampler: True; False for no grid
            then beyond those of every n steps; "auto" where it takes at most a quarter of the arithmetic that
            training took, see `in_proportion`, else by `sampler`.
    """

    def __init__(
        self,
        sampler: Sampler,
        every_n_steps: int = 10_000,
        n: int = 64,
        seed: int = 0,
        final: bool | Literal["auto"] = "auto",
    ):
        super().__init__(every_n_steps)
        if n < 1:
            raise ValueError(f"callbacks.samples.n={n} must be at least 1")
        if final not in (True, False, "auto"):
            raise ValueError(f"callbacks.samples.final={final} must be true, false or auto")
        self.sampler = sampler
        self.n = n
        self.seed = seed
        self.final = final
        self._drawn: tuple[int, Sampler] | None = None  # the step of the last grid, and what drew it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._drawn is not None and self._drawn[0] > trainer.global_step:
            self._drawn = None  # of steps that come again, and whose grids are gone
        if trainer.is_global_zero:
            for left in _directory(trainer).glob(".step_*.part.png"):  # of a start that was killed
                left.unlink(missing_ok=True)

    def pause(self, trainer: Trainer, module: Any) -> Pause | None:
        batch_size = getattr(getattr(trainer, "datamodule", None), "batch_size", 0) or module.images_per_step
        if not batch_size:
            return Pause("grid", self.every_n_steps)
        image = self.n / (STEP * batch_size)  # in steps, for each pass through the network
        nfe, last = Drawing(module, sampler=self.sampler).nfe, Drawing(module).nfe
        if self.final == "auto" and not in_proportion(last, self.n, trainer.max_steps, batch_size):
            last = nfe
        return Pause("grid", self.every_n_steps, nfe * image, last * image if self.final else None)

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        if not (self.final and step == trainer.max_steps):
            self._draw(trainer, module, self.sampler)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.final:
            self._draw(trainer, pl_module, self._of_last_grid(trainer, pl_module))

    def _of_last_grid(self, trainer: Trainer, module: Any) -> Sampler:
        """The run's own sampler, or that of the other grids where its work would be out of proportion."""
        own: Sampler = module.sampler
        nfe, steps, batch_size = Drawing(module).nfe, trainer.global_step, module.images_per_step
        if self.final != "auto" or in_proportion(nfe, self.n, steps, batch_size):
            return own
        if trainer.is_global_zero:
            log.info(
                "the last grid is drawn by callbacks.samples.sampler: the run's own sampler would take %s "
                "forward passes, and training took the work of %s; callbacks.samples.final=true has it all "
                "the same",
                f"{nfe * self.n:,}", f"{STEP * steps * batch_size:,}",
            )  # fmt: skip
        return self.sampler

    def _draw(self, trainer: Trainer, module: Any, sampler: Sampler) -> None:
        """Draw, save and log a grid; give up where the run is asked to end. The leader draws it alone, but
        where each rank holds a part of the network, and all go through it together.
        """
        with together(trainer) if module.is_sharded else leader_alone(trainer) as draws:
            if draws and self._drawn != (trainer.global_step, sampler):
                self._draw_here(trainer, module, sampler)
        end_if_asked(trainer)

    def _draw_here(self, trainer: Trainer, module: Any, sampler: Sampler) -> None:
        drawing = Drawing(module, seed=self.seed, sampler=sampler)
        batch_size = images_at_once(module)
        if module.is_sharded:
            batch_size = trainer.strategy.broadcast(batch_size)
        asked_to_end = received_anywhere if module.is_sharded else received
        drawn = announced_sampling(
            drawing,
            range(self.n),
            batch_size=batch_size,
            on_step=lambda *_: progressed(trainer),
            stop=lambda: bool(asked_to_end(trainer)),
            quiet=not trainer.is_global_zero,
        )
        if drawn is None:
            return
        self._drawn = trainer.global_step, sampler
        if not trainer.is_global_zero:
            return
        log_colours(trainer, module.data, drawn)
        picture = sheet(module, drawn)
        writing.write(_directory(trainer) / f"step_{trainer.global_step:08d}.png", png(picture))
        for logger in trainer.loggers:
            log_picture(logger, "samples/grid", picture, step=trainer.global_step)


def _directory(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "samples"
