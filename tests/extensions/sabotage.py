"""Breaks one contract each, through the project's own doors: tests must see the difference."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import GradBucket

from ddpm.data.digits import Digits
from ddpm.data.module import Batch, MicroBatches
from ddpm.random import Purpose, Stream


def _keep_own_gradient(state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class NoAveraging(Callback):
    """Every rank steps with its own gradient."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.strategy.model.register_comm_hook(None, _keep_own_gradient)


class SameShard(Digits):
    """Every rank sees the pictures of rank 0, at its own places."""

    def __init__(self, batch_size: int = 64, *, num_workers: int = 0, seed: int = 0):
        super().__init__(batch_size, num_workers=num_workers, seed=seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.trainer.training:
            whole = MicroBatches(
                self.data_set.train, batch_size=64, seed=self.seed, rank=0, world_size=2, accumulation=1
            )
            batch = batch._replace(x_0=whole[batch.step].x_0)
        return super().on_after_batch_transfer(batch, dataloader_idx)


class NoiseOfRankZero(Callback):
    """Every rank draws the noise of the first places: what one seed for all ranks gives."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        own = module._stream

        def stream(purpose: Purpose) -> Stream:
            found = own(purpose)
            normal = found.normal
            found.normal = lambda step, places, shape: normal(step, range(len(places)), shape)
            return found

        module._stream = stream


class Raises(Callback):
    """Fails in the middle of the run."""

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("on purpose")
