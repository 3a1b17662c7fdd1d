"""Callbacks that plant a NaN on one rank at one step."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from ddpm.training.shards import parts


class Plant(Callback):
    """Makes one thing not finite where it is computed, until the run has gone back to a checkpoint.

    Args:
        what: "loss", of the second image of the rank's part; "weight", one number of it, from that step on;
            or "gradient", before ranks reduce it, of `parameter`, or of the first layer where the network is
            sharded.
        step: optimizer step, from 0.
        rank: whose.
        parameter: the number of one of the network's.
    """

    def __init__(self, what: str, step: int, rank: int = 0, parameter: int = 5):
        self.what, self.step, self.rank, self.parameter = what, step, rank, parameter
        self._planted = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        module: Any = pl_module
        if self._planted:
            return
        self._planted = True

        def now() -> bool:
            here = trainer.global_step == self.step and trainer.global_rank == self.rank
            return here and module.guard.rollbacks == 0

        if self.what == "loss":
            own = module.losses

            def losses(*arguments: Any) -> Tensor:
                found: Tensor = own(*arguments)
                if now() and module.network.training:
                    found = found + torch.where(torch.arange(len(found)) == 1, torch.nan, 0.0)
                return found

            module.losses = losses
        elif self.what == "gradient" and module.is_sharded:  # whose parameters meet no gradient of one rank

            def hook(_: Any, __: Any, output: Tensor) -> None:
                if output.requires_grad:
                    output.register_hook(lambda gradient: gradient * torch.nan if now() else gradient)

            module.network.conv_in.register_forward_hook(hook)
        elif self.what == "gradient":
            parameter = list(module.network.parameters())[self.parameter]
            parameter.register_hook(lambda gradient: gradient * torch.nan if now() else gradient)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        module: Any = pl_module
        here = trainer.global_step == self.step and trainer.global_rank == self.rank
        if self.what == "weight" and here and module.guard.rollbacks == 0:
            (held,) = parts([list(module.network.parameters())[self.parameter]])
            with torch.no_grad():
                held.view(-1)[0] = torch.nan
