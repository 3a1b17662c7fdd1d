"""Bits per dimension at the end of training, so that the runs of a sweep can be compared by them."""

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.data.module import ImageDataModule
from ddpm.evaluation.nll import NLL
from ddpm.runtime.progress import Countdown
from ddpm.sampling.batches import images_at_once
from ddpm.training.callbacks.interruption import end_if_asked, progressed
from ddpm.training.metrics import RunningMean, log_scalars, reduce
from ddpm.training.module import DDPM


class BitsPerDim(Callback):
    """Logs `val/bits_per_dim` when training ends: the variational bound on the negative log-likelihood of
    held-out images (Ho et al. 2020, eq. 5), with the averaged weights. `evaluate.py` measures more of it.

    Args:
        n: images; None takes all that were held out.
        num_steps: steps of L_t drawn for each image, without replacement; None computes every one.

    Raises:
        ValueError: where a setting is below 1.
    """

    def __init__(self, n: int | None = None, num_steps: int | None = 50):
        self.metric = NLL(num_steps, n)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be measured, before training begins."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, ImageDataModule) or not isinstance(pl_module, DDPM):
            raise ValueError("bits_per_dim: measures images that ddpm.data has held out")
        self.metric.check(pl_module, data)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Every rank measures its share, and all of them as often as each other: a network may be parted."""
        module, data = pl_module, getattr(trainer, "datamodule", None)
        assert isinstance(module, DDPM)
        assert isinstance(data, ImageDataModule)
        n, world_size = self.metric.images(data), trainer.world_size
        size = min(images_at_once(module), math.ceil(n / world_size))
        if world_size > 1:  # devices may be unlike
            size = trainer.strategy.broadcast(size)
        pieces = [range(first, min(first + size, n)) for first in range(0, n, size)]
        mean, nfe = RunningMean(), 1 + (self.metric.num_steps or module.schedule.num_timesteps - 1)
        rounds = math.ceil(len(pieces) / world_size)
        with Countdown("likelihood", nfe * rounds if trainer.is_global_zero else 0) as countdown:

            def on_step() -> None:
                progressed(trainer)
                countdown.advance(countdown.done + 1)

            for first in range(0, rounds * world_size, world_size):
                own = first + trainer.global_rank
                with module.evaluating(), torch.inference_mode():
                    piece = pieces[min(own, len(pieces) - 1)]
                    bits = self.metric.bound(module, data, piece, module.seed, on_step).total
                if own < len(pieces):
                    mean.add(bits.sum(), len(piece))
                end_if_asked(trainer)
        log_scalars(trainer, reduce({"val/bits_per_dim": mean}, module.device))
