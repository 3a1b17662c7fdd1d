"""Saving checkpoints as a run goes."""

import os
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer

from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.checkpoints import LAST, at_step, numbered


class Checkpoints(EveryNSteps):
    """Saves `checkpoints/step_XXXXXXXX.ckpt` as the run goes, and `last.ckpt`, which always is the newest.

    Files of other names in that directory are left alone.

    Args:
        every_n_steps: optimizer steps between checkpoints; the end of the run is saved in any case.
        keep: how many of the newest stay; None keeps all. Two or more, so that a damaged one has a
            predecessor.
        milestones_every_n_steps: checkpoints that stay forever; must be a multiple of `every_n_steps`. None
            for no milestones.
    """

    def __init__(
        self, every_n_steps: int = 10_000, keep: int | None = 3, milestones_every_n_steps: int | None = None
    ):
        super().__init__(every_n_steps)
        if keep is not None and keep < 2:
            raise ValueError(f"callbacks.checkpoints.keep={keep} must be at least 2, or null to keep all")
        if milestones_every_n_steps is not None and (
            milestones_every_n_steps < 1 or milestones_every_n_steps % every_n_steps
        ):
            raise ValueError(
                f"callbacks.checkpoints.milestones_every_n_steps={milestones_every_n_steps} must be a "
                f"multiple of every_n_steps={every_n_steps}"
            )
        self.keep = keep
        self.milestones_every_n_steps = milestones_every_n_steps
        self._saved_step = -1

    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Save the run as it is now, unless this step is saved already. Every rank must call it."""
        step = trainer.global_step
        if step == self._saved_step:
            return
        self._saved_step = step
        directory = Path(trainer.default_root_dir) / "checkpoints"
        path = directory / at_step(step)
        trainer.save_checkpoint(path)
        if trainer.is_global_zero:
            _link(path, directory / LAST)
            self._prune(directory)

    def _prune(self, directory: Path) -> None:
        saved = numbered(directory)
        for step in sorted(saved)[: -self.keep] if self.keep else []:
            if not self.milestones_every_n_steps or step % self.milestones_every_n_steps:
                saved[step].unlink(missing_ok=True)


def _link(path: Path, name: Path) -> None:
    """Make `name` another name of the file, or a copy where the file system has no hard links."""
    temporary = name.with_name(f".{name.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:
        import shutil

        shutil.copyfile(path, temporary)
    os.replace(temporary, name)
