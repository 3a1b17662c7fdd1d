"""Small models and trainers that several test files build."""

from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import nn
from torch.optim import Adam

from ddpm.diffusion import NoiseSchedule, Parametrization
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.objectives import Epsilon
from ddpm.diffusion.samplers import DDIM, Ancestral
from ddpm.diffusion.schedules import linear
from ddpm.diffusion.timesteps import Timesteps, Uniform
from ddpm.diffusion.validity import check_combination
from ddpm.diffusion.variances import FixedLarge, Variance
from ddpm.diffusion.weighting import Simple, Weighting
from ddpm.networks.unet import UNet
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.checkpoints import AtomicCheckpointIO
from ddpm.training.ema import EMA
from ddpm.training.lr_schedules import warmup
from ddpm.training.module import DDPM


def small_unet(dropout: float = 0.0) -> UNet:
    return UNet(1, 1, channels=8, multipliers=(1, 2), blocks=1, norm_groups=4, dropout=dropout)


def make_module(
    network: nn.Module | None = None,
    seed: int = 0,
    num_timesteps: int = 100,
    timesteps: Timesteps | None = None,
    variance: Variance | None = None,
    weighting: Weighting | None = None,
    classes: list[str] | None = None,
) -> DDPM:
    torch.manual_seed(0)
    return DDPM(
        small_unet() if network is None else network,
        linear(num_timesteps),
        objective=Epsilon(),
        variance=variance or FixedLarge(),
        weighting=weighting or Simple(),
        timesteps=timesteps or Uniform(),
        sampler=DDIM(5),
        optimizer=partial(Adam, lr=2e-3, fused=True),
        lr_schedule=partial(warmup, warmup_steps=3),
        image_shape=(1, 8, 8),
        classes=classes,
        ema=partial(EMA, decay=0.9),
        seed=seed,
        config={"seed": seed},
        data={"image_shape": [1, 8, 8]},
    )


def make_trainer(directory: Path, max_steps: int, *callbacks: Callback, accumulation: int = 1) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=max_steps,
        accumulate_grad_batches=accumulation,
        gradient_clip_val=1.0,
        default_root_dir=directory,
        callbacks=[TrainingRows(), *callbacks],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=1000,
    )


def makes_sense(schedule: NoiseSchedule, parts: Parametrization, weighting: Weighting) -> bool:
    """Whether a loss may be computed by these together."""
    try:
        check_combination(
            schedule=schedule,
            **parts._asdict(),
            weighting=weighting,
            timesteps=Uniform(),
            sampler=Ancestral(),
            guidance=NoGuidance(),
            num_classes=None,
            label_drop=0.0,
        )
    except ValueError:
        return False
    return True
