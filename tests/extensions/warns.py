"""A callback that warns on every rank: of what all see alike, and of what one alone sees."""

import logging
import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class Warns(Callback):
    """Before the second step."""

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *arguments: Any) -> None:
        if trainer.global_step == 1:
            warnings.warn("seen by all", stacklevel=1)
            log.warning("logged by %d", trainer.global_rank)
            log.error("an error of %d", trainer.global_rank)
