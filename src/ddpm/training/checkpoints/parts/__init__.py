"""Checkpoints in parts: each process of a sharded training writes what it holds, and none holds the whole.

The file of the checkpoint is its head: all that every process has, and which files beside it, in `parts/`,
hold the rest, by names that their contents give. It is written when they are, so its name always means a
whole checkpoint, and other names of it are of the same one. Tensors are parted along their first dimension,
as FSDP2 does it: `rows` says how.
"""

from ddpm.training.checkpoints.parts.listing import DIRECTORY, KEY, Parts, listed, rows
from ddpm.training.checkpoints.parts.reading import assembled, check, filled, held_by
from ddpm.training.checkpoints.parts.removing import bring, files_of, remove, remove_files, unlisted
from ddpm.training.checkpoints.parts.writing import Report, Together, conclude, split, write_part

__all__ = [
    "DIRECTORY",
    "KEY",
    "Parts",
    "Report",
    "Together",
    "assembled",
    "bring",
    "check",
    "conclude",
    "files_of",
    "filled",
    "held_by",
    "listed",
    "remove",
    "remove_files",
    "rows",
    "split",
    "unlisted",
    "write_part",
]
