"""Breaks one contract each, through the project's own doors: tests must see the difference."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import GradBucket

from ddpm.data.batches import Batch, MicroBatches
from ddpm.data.loading import read
from ddpm.random import Purpose, Stream


def _keep_own_gradient(state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class NoAveraging(Callback):
    """Every rank steps with its own gradient."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.strategy.model.register_comm_hook(None, _keep_own_gradient)


class SameShard(Callback):
    """Every rank sees the images of rank 0, at its own indices."""

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        data = trainer.datamodule
        images, own = data.data_set.train, data.on_after_batch_transfer
        batches = MicroBatches(
            len(images), batch_size=64, seed=data.seed, rank=0, world_size=2, accumulation=1
        )

        def of_rank_zero(batch: Batch, dataloader_idx: int) -> Batch:
            if trainer.training:
                batch = batch._replace(x_0=read(images, batches[batch.step]).x_0)
            return own(batch, dataloader_idx)

        data.on_after_batch_transfer = of_rank_zero


class NoiseOfRankZero(Callback):
    """Every rank draws the noise of the first indices: what one seed for all ranks gives."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        own = module._stream

        def stream(purpose: Purpose) -> Stream:
            found = own(purpose)
            normal = found.normal
            found.normal = lambda step, indices, shape: normal(step, range(len(indices)), shape)
            return found

        module._stream = stream


class Raises(Callback):
    """Fails in the middle of the run."""

    def on_train_batch_end(self, trainer: Trainer, *arguments: Any) -> None:
        if trainer.global_step == 3:
            raise RuntimeError("on purpose")
