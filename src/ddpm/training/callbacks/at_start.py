"""The base of callbacks that draw a picture once, before the first step of a run."""

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.sampling.captions import legible
from ddpm.training.batches import images_of
from ddpm.training.callbacks.interruption import leader_alone
from ddpm.training.callbacks.shown import FOLDER, spared

log = logging.getLogger(__name__)


class AtStart(Callback, ABC):
    """Draws from the leader's first batch, which is there anyway: nothing is read for it, and no random
    number of the training is drawn. A run that goes on from a checkpoint in its directory has its picture.
    """

    name: ClassVar[str]
    """Of the file in `figures/`, without its ending."""

    needs_images: ClassVar[bool] = True
    """Whether nothing is drawn of images of another shape than the run's, which the step refuses."""

    def __init__(self) -> None:
        self._is_drawn = False  # by this start or an earlier one
        self._is_looked_for = False  # in this start

    @abstractmethod
    def draw(self, trainer: Trainer, module: Any, x_0: Tensor, names: list[str]) -> None:
        """What is done, by the leader alone.

        Args:
            trainer: of the run.
            module: a `DDPM`.
            x_0: images as the network sees them, float32 [B, C, H, W] in [-1, 1], on its device.
            names: of their classes, "" for none.
        """

    def state_dict(self) -> dict[str, Any]:
        return {"is_drawn": self._is_drawn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._is_drawn = bool(state_dict.get("is_drawn"))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._is_looked_for:
            return
        self._is_looked_for = True
        with leader_alone(trainer) as alone, torch.no_grad():
            there = Path(trainer.default_root_dir, FOLDER, f"{self.name}.png")
            if alone and not (self._is_drawn and there.is_file()):
                with spared(type(self).__name__):
                    self._draw(trainer, pl_module, batch)
        self._is_drawn = True

    def _draw(self, trainer: Trainer, module: Any, batch: Any) -> None:
        x_0, labels = images_of(batch)
        if not self.needs_images or tuple(x_0.shape[1:]) == module.image_shape:  # else the step refuses it
            self.draw(trainer, module, x_0, _names(module, labels, len(x_0)))


def _names(module: Any, labels: Tensor | None, n: int) -> list[str]:
    """Of the classes as the network is told them: one that is withheld has none."""
    if module.classes is None or labels is None:
        return [""] * n
    classes = legible(module.classes)
    known = range(len(classes))  # the step refuses others
    return [classes[label] if label in known else "" for label in labels.tolist()]
