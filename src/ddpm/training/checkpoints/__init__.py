"""Checkpoints: files that are whole or not there, checked whenever they are read."""

from ddpm.training.checkpoints.reading import (
    LAST,
    AtomicCheckpointIO,
    CheckpointError,
    at_step,
    averaged_weights,
    find,
    load,
    numbered,
)

__all__ = [
    "LAST",
    "AtomicCheckpointIO",
    "CheckpointError",
    "at_step",
    "averaged_weights",
    "find",
    "load",
    "numbered",
]
