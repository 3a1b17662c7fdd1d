"""The settings that are single values, with their types; no torch needed.

Of `lightning.pytorch.Trainer` those that belong to a person. Loggers, callbacks, plugins and the strategy are
built from their own groups, and what would undo the framework's contracts (samplers, sanity checks,
Lightning's own checkpoints) is not offered.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class TrainerSettings:
    """Meanings are Lightning's, but for `val_check_interval`, which counts optimizer steps."""

    accelerator: str
    devices: Any
    num_nodes: int
    precision: str
    max_steps: int
    max_time: str | None
    val_check_interval: int
    limit_val_batches: int | None
    log_every_n_steps: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    deterministic: Any
    benchmark: bool | None
    detect_anomaly: bool
    profiler: str | None


@dataclass
class ModelSwitches:
    """How a network is computed, which its constructor does not know: see `ddpm.runtime.computing`.

    None chooses what is fastest on the device.
    """

    compile: bool | None
    channels_last: bool | None


@dataclass
class DataSwitches:
    """How images become batches, which their source does not know: see `ddpm.data.module.ImageDataModule`."""

    batch_size: int
    horizontal_flip: bool
    dequantize: bool
    label_drop: float
    device_share: float
    num_workers: int | None


@dataclass
class RootSettings:
    """The keys of the programs that belong to no group."""

    seed: int
    preflight: bool
    conditional: bool
    ema_decay: float
    clip_x_0: bool
    ckpt: str | None
    init: str | None
    n: int
    batch_size: int | None
    precision: str
    channels_last: bool | None
    compile: bool | None
    weights: str
    labels: list[Any] | None
    start: str | None
    end: str | None
    start_t: int | None
    mask: str | None
    device: str | None
    out: str


def _at_least(least: float) -> Callable[[Any], str | None]:
    return lambda value: None if value is None or value >= least else f"must be at least {least:g}"


def _one_of(*choices: object) -> Callable[[Any], str | None]:
    return lambda value: None if value in choices else f"must be {' or '.join(map(str, choices))}"


def _devices(value: object) -> str | None:
    counts = "must be a number of devices, a list of their indices, -1 for all, or auto"
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        return counts
    if isinstance(value, int):
        return None if value == -1 or value > 0 else counts
    indices = value if isinstance(value, list) else value.replace(" ", "").split(",")
    numbers = bool(indices) and all(str(index).isdigit() for index in indices)
    return None if numbers or value in ("auto", "-1") else counts


RANGES: dict[str, Callable[[Any], str | None]] = {
    "trainer.devices": _devices,
    "trainer.num_nodes": _at_least(1),
    "trainer.max_steps": lambda value: (
        None if value == -1 or value > 0 else "must be at least 1, or -1 for no end"
    ),
    "trainer.val_check_interval": _at_least(1),
    "trainer.log_every_n_steps": _at_least(1),
    "trainer.accumulate_grad_batches": _at_least(1),
    "trainer.gradient_clip_val": _at_least(0),
    "trainer.deterministic": _one_of(True, False, "warn"),
    # gradients are clipped as they are, which under 16-mixed would be times the loss scale
    "trainer.precision": _one_of("auto", "32-true", "bf16-mixed"),
    "precision": _one_of("auto", "32-true", "bf16-mixed"),
    "seed": _at_least(0),
    "n": _at_least(1),
    "batch_size": _at_least(1),
    "weights": _one_of("ema", "raw"),
}
"""For a key, what is wrong with a value of the right type, or None."""
