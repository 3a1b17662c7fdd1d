"""Checkpoints: files that are whole or not there, and checked whenever they are read."""

from ddpm.training.checkpoints.archive import RefusedFileError
from ddpm.training.checkpoints.guarded import guarded_load
from ddpm.training.checkpoints.layout import LAYOUT, CheckpointError
from ddpm.training.checkpoints.names import LAST, at_step, left_over, numbered
from ddpm.training.checkpoints.reading import averaged_weights, find, load, load_rows
from ddpm.training.checkpoints.writing import AtomicCheckpointIO, write

__all__ = [
    "LAST",
    "LAYOUT",
    "AtomicCheckpointIO",
    "CheckpointError",
    "RefusedFileError",
    "at_step",
    "averaged_weights",
    "find",
    "guarded_load",
    "left_over",
    "load",
    "load_rows",
    "numbered",
    "write",
]
