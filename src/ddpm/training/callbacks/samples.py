"""Grids of samples as the network learns."""

import logging
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from ddpm.diffusion.samplers import Sampler
from ddpm.runtime.arithmetic import STEP
from ddpm.runtime.progress import Pause
from ddpm.sampling.drawing import Drawing
from ddpm.sampling.figures import for_loggers, sheet, to_uint8
from ddpm.sampling.model import Weights
from ddpm.sampling.seen import seen, seen_said
from ddpm.training.callbacks.colours import log_colours
from ddpm.training.callbacks.drawing import at_once, drawing_ranks, drawn, manner
from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.callbacks.interruption import end_if_asked
from ddpm.training.callbacks.shown import show, spared

log = logging.getLogger(__name__)

SHARE = 0.25
"""Of the arithmetic of training, which the last grid may take by the run's own sampler if final is auto."""


FOLDER = "samples"
"""In the run's directory."""

NAMES: dict[Weights, str] = {"ema": "step_", "raw": "raw_step_"}
KEYS: dict[Weights, str] = {"ema": "samples/grid", "raw": "samples/grid_raw"}
"""What begins the names of files, before the step, and what grids are called in loggers; by the weights."""

KEPT = 16
"""Samples of the last grid that other callbacks may look at."""


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
    While the average still lags behind, in the first grids, each has one by the raw weights beside it:
    `samples/raw_step_XXXXXXXX.png`, from the same noise by the same sampler.

    Args:
        sampler: of the grids during training.
        every_n_steps: optimizer steps between grids.
        n: pictures in a grid.
        seed: of the noise.
        final: draw the last grid, when training ends, with the run's own sampler: True; False for no grid
            then beyond those of every n steps; "auto" where it takes at most a quarter of the arithmetic that
            training took, see `in_proportion`, else by `sampler`.
        raw: how many of the first grids during training are drawn by the raw weights as well; where no
            average is kept, they are those of the grid itself, and none is.

    Attributes:
        last: of the last grid by the averaged weights its step and its first samples, uint8 [K, C, H, W];
            None on ranks that have drawn none.
    """

    def __init__(
        self,
        sampler: Sampler,
        every_n_steps: int = 10_000,
        n: int = 64,
        seed: int = 0,
        final: bool | Literal["auto"] = "auto",
        raw: int = 0,
    ):
        super().__init__(every_n_steps)
        if n < 1:
            raise ValueError(f"callbacks.samples.n={n} must be at least 1")
        if final not in (True, False, "auto"):
            raise ValueError(f"callbacks.samples.final={final} must be true, false or auto")
        if raw < 0:
            raise ValueError(f"callbacks.samples.raw={raw} must be at least 0")
        self.sampler = sampler
        self.n = n
        self.seed = seed
        self.final = final
        self.raw = raw
        self.last: tuple[int, Tensor] | None = None
        self._drawn: dict[Weights, tuple[int, Sampler]] = {}  # the step of the last grid, and what drew it

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if any(step > trainer.global_step for step, _ in self._drawn.values()):
            self._drawn.clear()  # of steps that come again, and whose grids are gone
        if trainer.is_global_zero:
            for name in NAMES.values():
                for left in _directory(trainer).glob(f".{name}*.part.png"):  # of a start that was killed
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
            average: Any = module.ema
            if step <= self.raw * self.every_n_steps and average.state_dict():
                self._draw(trainer, module, self.sampler, "raw")

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
                "forward passes, more than a quarter of the training's %s; callbacks.samples.final=true has "
                "it all the same",
                f"{nfe * self.n:,}", f"{STEP * steps * batch_size:,}",
            )  # fmt: skip
        return self.sampler

    def _draw(self, trainer: Trainer, module: Any, sampler: Sampler, weights: Weights = "ema") -> None:
        """Draw, save and log a grid; give up where the run is asked to end."""
        with drawing_ranks(trainer, module) as draws:
            if draws and self._drawn.get(weights) != (trainer.global_step, sampler):
                self._draw_here(trainer, module, sampler, weights)
        end_if_asked(trainer)

    def _draw_here(self, trainer: Trainer, module: Any, sampler: Sampler, weights: Weights) -> None:
        drawing = Drawing(module, seed=self.seed, sampler=sampler, weights=weights)
        images = drawn(trainer, module, drawing, self.n, at_once(trainer, module))
        if images is None:
            return
        step = trainer.global_step
        self._drawn[weights] = step, sampler
        if weights == "ema":
            self.last = step, seen(module, images[:KEPT])
        if not trainer.is_global_zero:
            return
        if weights == "ema":
            log_colours(trainer, module.data, images)
        with spared(KEYS[weights]):
            caption = f"step {step:,}: {manner(module, drawing, weights)}{seen_said(module)}"
            whole = to_uint8(seen(module, images))
            picture, smaller, logged = sheet(module, whole), for_loggers(whole), None
            if smaller.shape != whole.shape:
                logged = sheet(module, smaller)
                size = " x ".join(map(str, smaller.shape[2:]))
                caption += f"; images at {size}, as they are in {_file(weights, step)}"
            show(trainer, KEYS[weights], picture, _file(weights, step), caption, logged=logged)


def _file(weights: Weights, step: int) -> str:
    return f"{FOLDER}/{NAMES[weights]}{step:08d}.png"


def _directory(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / FOLDER
