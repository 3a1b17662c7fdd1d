"""Every value of every logger at the number of completed optimizer steps."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.loggers import at_completed_steps, may_fail


class CompletedSteps(Callback):
    """Has all loggers of the trainer write at completed optimizer steps, whoever logs; see
    `at_completed_steps`; and none of them end the training, see `may_fail`. The first of the callbacks.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            may_fail(logger)
            at_completed_steps(logger, trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Where a run goes on from a checkpoint of a training's end, Lightning counts one step too many, and
        would write what is logged every n steps beside the rows of every n steps.
        """
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = min(loop._batches_that_stepped, trainer.global_step)
