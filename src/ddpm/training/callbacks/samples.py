"""Grids of samples as the network learns."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from ddpm.diffusion.samplers import Sampler
from ddpm.sampling.batches import announced_sampling
from ddpm.sampling.figures import sheet
from ddpm.training.callbacks.interruption import Interrupted, Interruption
from ddpm.training.loggers import WandbLogger

log = logging.getLogger(__name__)


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
