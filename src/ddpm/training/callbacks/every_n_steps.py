"""The base of callbacks that count optimizer steps."""

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.runtime.progress import Pause


class EveryNSteps(Callback, ABC):
    """Calls `on_step` once after each optimizer step whose number `every_n_steps` divides.

    A step is counted when Lightning has made it, however many micro-batches it took: also the short one at
    the end of a finite loader. At the step's validation `on_step` has been called already. A callback of your
    own that draws a picture every 100 steps, in every logger that shows pictures:

        class Mean(EveryNSteps):
            def on_step(self, trainer, module, step):
                mean = np.uint8((module.sample(range(16)).mean(0).cpu() + 1) * 127.5)
                picture = np.repeat(mean.transpose(1, 2, 0), 4 - mean.shape[0], axis=2)
                for logger in trainer.loggers:
                    log_picture(logger, "mine/mean", picture, step)

    and in the configuration `callbacks.mean: {_target_: mypackage.Mean, every_n_steps: 100}`.

    A run that goes on from a checkpoint at step s calls `on_step` for s once more, since a kill may have come
    before it was through: what it does must be the same again.

    One that overrides `on_train_batch_start` or `on_train_batch_end` must call `super()`.

    Args:
        every_n_steps: optimizer steps from one call to the next.

    Raises:
        ValueError: where it is below 1.
    """

    def __init__(self, every_n_steps: int = 1):
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps={every_n_steps} must be at least 1")
        self.every_n_steps = every_n_steps
        self._before = 0

    @abstractmethod
    def on_step(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        """What is done; `step` is the number of completed optimizer steps, the same on every rank."""

    def pause(self, trainer: Trainer, module: LightningModule) -> Pause | None:
        """As what the time left counts it, and the terminal names it beforehand; None for what takes next to
        no time, and for what is done after each step.
        """
        name = type(self).__name__
        return None if self.every_n_steps == 1 else Pause(name, self.every_n_steps)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._before = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # several optimizers make several steps with one batch, and may step over the number itself
        if trainer.global_step // self.every_n_steps > self._before // self.every_n_steps:
            self.on_step(trainer, pl_module, trainer.global_step)
