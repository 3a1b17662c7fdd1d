"""Breaks one contract each, through the project's own doors: tests must see the difference."""

import json
import os
import signal
from pathlib import Path
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


class Ends(Callback):
    """Ends a process at a step of each start: by SIGKILL, or by raising. What starts it again goes on.

    Args:
        at: the step for each start; starts beyond go undisturbed.
        rank: that ends.
        kill: whether by SIGKILL.
    """

    def __init__(self, at: list[int], rank: int = 0, kill: bool = True):
        self.at = at
        self.rank = rank
        self.kill = kill

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        record = json.loads((Path(trainer.default_root_dir) / "run.json").read_text())
        self.step = [*self.at, *([-1] * len(record["starts"]))][len(record["starts"]) - 1]

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("ended on purpose")
