"""Every value of every logger at the number of completed optimizer steps."""

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.loggers import at_completed_steps


class CompletedSteps(Callback):
    """Has all loggers of the trainer write at completed optimizer steps, whoever logs; see
    `at_completed_steps`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers:
            at_completed_steps(logger, trainer)
