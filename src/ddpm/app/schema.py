"""The settings of `lightning.pytorch.Trainer` that belong to a person, with their types; no torch needed.

Loggers, callbacks, plugins and the strategy are built from their own groups, and what would undo the
framework's contracts (samplers, sanity checks, Lightning's own checkpoints) is not offered.
"""

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainerSettings:
    """Meaning and defaults are Lightning's, but for `val_check_interval`, which counts optimizer steps."""

    accelerator: str = "auto"
    devices: Any = "auto"
    num_nodes: int = 1
    precision: str = "32-true"
    max_steps: int = -1
    max_time: str | None = None
    val_check_interval: int = 1
    limit_val_batches: int | None = None
    log_every_n_steps: int = 50
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    deterministic: Any = False
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: str | None = None


def devices_problem(value: object) -> str | None:
    """Why `trainer.devices` cannot be this, or None."""
    counts = "a number of devices, a list of their indices, -1 for all, or auto"
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        return f"must be {counts}"
    if isinstance(value, int):
        return None if value == -1 or value > 0 else f"must be {counts}"
    indices = value if isinstance(value, list) else value.replace(" ", "").split(",")
    if value == "auto" or (indices and all(str(index).lstrip("-").isdigit() for index in indices)):
        return None
    return f"must be {counts}"
