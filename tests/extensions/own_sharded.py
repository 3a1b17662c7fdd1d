"""A script of a person's own on two devices: python own_sharded.py fsdp|ddp DIRECTORY."""

import os
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from ddpm.diffusion.schedules import linear
from ddpm.networks.dit import DiT
from ddpm.training.module import DDPM
from ddpm.training.sharding import FullySharded

warnings.simplefilter("ignore")
way, directory = sys.argv[1], Path(sys.argv[2])
rank = int(os.environ.get("LOCAL_RANK", 0))
torch.manual_seed(rank)  # so that the networks differ as they are built
module = DDPM(
    DiT(1, 1, num_classes=3, width=32, depth=2, heads=2), linear(100), image_shape=(1, 8, 8),
    classes=["cat", "dog", "owl"], label_drop=0.1,
    optimizer=partial(torch.optim.AdamW, lr=2e-3, eps=1e-4, fused=True),
)  # fmt: skip
for parameter in module.network.parameters():
    torch.nn.init.normal_(parameter, std=0.1)
module.ema.reset()
drawn = torch.Generator().manual_seed(0)
images, labels = torch.rand(48, 1, 8, 8, generator=drawn) * 2 - 1, torch.arange(48) % 3
train = [(images[i + rank : i + 8 : 2], labels[i + rank : i + 8 : 2]) for i in range(0, 48, 8)]
held_out = [(images[:4], labels[:4])] * (1 + 2 * rank)  # three times as many batches on the second
trainer = Trainer(
    accelerator="cpu", devices=2, strategy=FullySharded() if way == "fsdp" else "ddp", max_steps=6,
    use_distributed_sampler=False, logger=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[ModelCheckpoint(dirpath=directory, filename="best", monitor="val/loss")],
    default_root_dir=directory, val_check_interval=3, check_val_every_n_epoch=None,
)  # fmt: skip
found = {}
loaders = [DataLoader(batches, batch_size=None) for batches in (train, held_out)]  # type: ignore[arg-type]
trainer.fit(module, *loaders)
found |= {name: float(value) for name, value in trainer.callback_metrics.items() if "perf" not in name}
trainer.test(module, loaders[1], ckpt_path="best", verbose=False)
found |= {name: float(value) for name, value in trainer.callback_metrics.items()}
found["sample"] = float(module.sample([0, 1, 2]).square().mean())
torch.save(found, directory / f"{rank}.pt")
