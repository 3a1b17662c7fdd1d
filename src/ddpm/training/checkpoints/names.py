"""Names of the checkpoints in a run's directory."""

import re
from pathlib import Path

LAST = "last.ckpt"
"""Another name of the newest checkpoint."""


def at_step(step: int) -> str:
    """The name of the checkpoint that a run writes at a step."""
    return f"step_{step:08d}.ckpt"


def numbered(directory: Path) -> dict[int, Path]:
    """The checkpoints in a directory that a run wrote by itself, by step. Others, such as copies under names
    of a person's own, are not among them.
    """
    found = {path: re.fullmatch(r"step_(\d{8,})\.ckpt", path.name) for path in directory.glob("step_*.ckpt")}
    return {int(match[1]): path for path, match in found.items() if match}


def being_written(path: Path) -> Path:
    """The name of a file until it is whole: one that is left over is of a write that was killed."""
    return path.with_name(f".{path.name}.part")


def left_over(directory: Path) -> list[Path]:
    """What writes that were killed left in a directory."""
    return [path for path in directory.glob(".*.ckpt.part") if path.is_file()]
