"""All ranks of a run go on from the same step, or not at all."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.ending import TrainingError


class SameStep(Callback):
    """Has the ranks compare, before the first step, where they go on from.

    Each found the newest whole checkpoint by itself: a file system that shows one of them less than the
    others would have them train different networks as one.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1:
            return
        own = torch.tensor(trainer.global_step, device=pl_module.device)
        steps = trainer.strategy.all_gather(own).flatten().tolist()
        if len(set(steps)) > 1:
            found = ", ".join(f"rank {rank} at {step}" for rank, step in enumerate(steps))
            raise TrainingError(
                f"the ranks found different checkpoints to go on from ({found}): the run directory must be "
                "one that all of them see, and see alike; start again"
            )
