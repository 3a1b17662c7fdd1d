"""The settings that are single values, with their types and ranges; no torch needed."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass
class DeviceSettings:
    """Of `lightning.pytorch.Trainer`, those that say where work is done, and in which precision."""

    accelerator: str
    devices: Any
    num_nodes: int
    precision: str


@dataclass
class TrainerSettings(DeviceSettings):
    """Of `lightning.pytorch.Trainer`, those that belong to a person; they mean what Lightning's mean, but for
    `val_check_interval`, which counts optimizer steps.
    """

    max_steps: int
    min_steps: int | None
    max_time: Any
    val_check_interval: int
    fast_dev_run: Any
    overfit_batches: Any
    limit_train_batches: Any
    limit_val_batches: Any
    log_every_n_steps: int
    accumulate_grad_batches: int
    gradient_clip_val: float | None
    gradient_clip_algorithm: str | None
    deterministic: Any
    benchmark: bool | None
    detect_anomaly: bool
    sync_batchnorm: bool
    profiler: Any


INSTEAD = {
    "max_epochs": "training counts steps, and batches cross from one epoch into the next: give "
    "trainer.max_steps=N; an epoch is the number of training images divided by data.batch_size",
    "min_epochs": "training counts steps: give trainer.min_steps=N",
    "check_val_every_n_epoch": "validation counts steps: give trainer.val_check_interval=N",
    "num_sanity_val_steps": "there is no sanity check; trainer.fast_dev_run=true tries a step of everything",
    "strategy": "is a group of its own: strategy=OPTION",
    "logger": "is a group of its own: logger=OPTION",
    "callbacks": "is a group of its own: callbacks=OPTION, or callbacks.NAME._target_=CLASS",
    "plugins": "the precision is trainer.precision, the cluster is found by itself",
    "enable_checkpointing": "callbacks.checkpoints=null writes no checkpoints",
    "enable_progress_bar": "callbacks.progress=null shows no progress",
    "enable_model_summary": "the network's size is said at the start; "
    "callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary shows its layers",
    "default_root_dir": "the run directory is hydra.run.dir=DIR",
    "use_distributed_sampler": "data are shared among devices by their index in the global batch",
    "limit_test_batches": "evaluate.py measures a trained run",
    "limit_predict_batches": "sample.py draws from a trained run: n=N",
    "reload_dataloaders_every_n_epochs": "the data are one endless stream",
    "inference_mode": "validation always runs under it",
    "barebones": "logger=none callbacks=none runs without either",
    "enable_autolog_hparams": "the configuration is given to the loggers once, at the start",
    "model_registry": "is not offered; the run directory holds the checkpoints",
}
"""Keys of Lightning's Trainer that are not set here, with what to type instead."""


@dataclass
class ModelSwitches:
    """How a network is computed, which its constructor does not know: see `ddpm.runtime.computing`.

    None chooses what is fastest on the device.
    """

    compile: bool | None
    channels_last: bool | None
    cuda_graphs: bool


@dataclass
class DataSwitches:
    """How images become batches, which their source does not know: see `ddpm.data.module.ImageDataModule`.

    `micro_batch` is for the trainer: see `ddpm.app.micro_batch`.
    """

    batch_size: int
    micro_batch: int | Literal["auto"] | None
    horizontal_flip: bool
    dequantize: bool
    label_drop: float
    condition: Any
    condition_drop: float
    device_share: float
    num_workers: int | None


@dataclass
class TrainSettings:
    """The keys of train.py that belong to no group."""

    seed: int
    conditional: bool
    clip_x_0: bool | float
    tags: list[Any] | None
    ckpt: str | None
    init: str | None
    resume: Any
    checkpoint: str
    on_nonfinite: str
    timeout: float
    requeue: bool
    verbose: str
    preflight: bool
    allow_targets: list[Any]


@dataclass
class SampleSettings:
    """The keys of sample.py that belong to no group."""

    ckpt: str
    n: int
    seed: int
    weights: str
    sigma_rel: float | None
    format: str
    labels: list[Any] | None
    condition: str | None
    condition_mask: str | None
    start: str | None
    start_t: int | list[int] | None
    end: str | None
    mask: str | None
    progressive: int | None
    shared_t: int | list[int] | None
    same_noise: bool
    batch_size: int | None
    channels_last: bool | None
    compile: bool | None
    timeout: float
    verbose: str
    out: str
    allow_targets: list[Any]


@dataclass
class EvaluateSettings:
    """The keys of evaluate.py that belong to no group."""

    ckpt: str | list[Any] | None
    samples: str | None
    n: int | None
    seed: int
    weights: str
    sigma_rel: float | None
    reference: str
    save_reference: str | None
    batch_size: int | None
    channels_last: bool | None
    compile: bool | None
    timeout: float
    verbose: str
    allow_targets: list[Any]


@dataclass
class InspectSettings:
    """The keys of `ddpm inspect` that belong to no group."""

    seed: int
    allow_targets: list[Any]


@dataclass
class EncodeSettings:
    """The keys of `ddpm encode` that belong to no group."""

    vae: str
    out: str
    draw: str
    scale: float | None
    accelerator: str
    batch_size: int | None
    seed: int
    allow_targets: list[Any]


@dataclass(frozen=True)
class Program:
    """What the configuration of a program is made of.

    Attributes:
        settings: a dataclass of its single values.
        objects: groups that build one object each.
        mappings: groups that build several, each under its name.
        optional: groups among them that may be empty.
        completed: groups among those whose keys may stand without an option, which is then the run's own.
        trainer: a dataclass of the keys of `trainer`; None where the program has none.
    """

    settings: type
    objects: tuple[str, ...] = ()
    mappings: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    completed: tuple[str, ...] = ()
    trainer: type | None = None


PROGRAMS = {
    "train": Program(
        TrainSettings,
        (
            "schedule", "objective", "variance", "weighting", "timesteps", "model", "sampler", "guidance",
            "data", "optimizer", "lr_schedule", "ema", "trainer", "strategy",
        ),
        ("logger", "callbacks"),
        ("logger", "callbacks", "strategy"),
        trainer=TrainerSettings,
    ),
    "sample": Program(
        SampleSettings,
        ("sampler", "guidance", "trainer", "strategy"),
        (),
        ("sampler", "guidance", "strategy"),
        ("sampler", "guidance"),
        DeviceSettings,
    ),
    "evaluate": Program(
        EvaluateSettings,
        ("sampler", "guidance", "extractor", "data", "variance", "trainer", "strategy"),
        ("metrics",),
        ("sampler", "guidance", "extractor", "data", "variance", "strategy"),
        ("sampler", "guidance", "data"),
        DeviceSettings,
    ),
    "inspect": Program(InspectSettings, ("data",)),
    "encode": Program(EncodeSettings, ("data",)),
}  # fmt: skip


def _at_least(least: float) -> Callable[[Any], str | None]:
    return lambda value: None if value is None or value >= least else f"must be at least {least:g}"


def _between(least: float, most: float) -> Callable[[Any], str | None]:
    return lambda value: None if least < value < most else f"must be between {least:g} and {most:g}"


def _one_of(*choices: object) -> Callable[[Any], str | None]:
    shown = " or ".join("null" if choice is None else str(choice) for choice in choices)
    return lambda value: None if value in choices else f"must be {shown}"


def _devices(value: object) -> str | None:
    counts = "must be a number of devices, a list of their indices, -1 for all, or auto"
    if isinstance(value, bool) or not isinstance(value, int | str | list):
        return counts
    if isinstance(value, int):
        return None if value == -1 or value > 0 else counts
    indices = value if isinstance(value, list) else value.replace(" ", "").split(",")
    numbers = bool(indices) and all(str(index).isdigit() for index in indices)
    return None if numbers or value in ("auto", "-1") else counts


def _some_steps(value: object) -> str | None:
    return "must name at least one step" if value == [] else None


def _batches(value: object) -> str | None:
    """Of limit_train_batches and its like: a number of batches, or a share of them."""
    right = value is None or (
        not isinstance(value, bool)
        and ((isinstance(value, int) and value >= 0) or (isinstance(value, float) and 0 <= value <= 1))
    )
    return None if right else "must be a number of batches, or a share of them from 0.0 to 1.0"


def _duration(value: object) -> str | None:
    """Of max_time: as Lightning reads it."""
    text = isinstance(value, str) and re.fullmatch(r"\d+(:\d\d){3}", value.strip())
    parts = isinstance(value, Mapping) and all(
        name in DURATIONS and isinstance(number, int | float) for name, number in value.items()
    )
    right = value is None or text or (parts and value)
    return None if right else "must be DD:HH:MM:SS, such as 00:08:00:00, or {hours: 8}"


def _profiler(value: object) -> str | None:
    if isinstance(value, Mapping) and "_target_" in value:
        return None
    return _one_of(None, "simple", "advanced", "pytorch")(value)


def _dev_run(value: object) -> str | None:
    right = isinstance(value, bool) or (isinstance(value, int) and value >= 0)
    return None if right else "must be true, false, or a number of steps"


DURATIONS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")

RANGES: dict[str, Callable[[Any], str | None]] = {
    "clip_x_0": lambda value: None if value is False or value > 0 else "must be true, false or above 0",
    "trainer.devices": _devices,
    "trainer.num_nodes": _at_least(1),
    "trainer.max_steps": lambda value: (
        None if value == -1 or value > 0 else "must be at least 1, or -1 for no end"
    ),
    "trainer.min_steps": _at_least(0),
    "trainer.val_check_interval": _at_least(1),
    "trainer.log_every_n_steps": _at_least(1),
    "trainer.accumulate_grad_batches": _at_least(1),
    "trainer.gradient_clip_val": _at_least(0),
    "trainer.gradient_clip_algorithm": _one_of(None, "norm", "value"),
    "trainer.deterministic": _one_of(True, False, "warn"),
    "trainer.precision": _one_of(*PRECISIONS),
    "trainer.fast_dev_run": _dev_run,
    "trainer.overfit_batches": _batches,
    "trainer.limit_train_batches": lambda value: (
        "would train on nothing; null is without limit"
        if value == 0 and not isinstance(value, bool)
        else _batches(value)
    ),
    "trainer.limit_val_batches": _batches,
    "trainer.max_time": _duration,
    "trainer.profiler": _profiler,
    "data.micro_batch": lambda value: None if value == "auto" else _at_least(1)(value),
    "schedule.num_timesteps": _at_least(1),
    "schedule.max_beta": _between(0, 1),
    **{
        f"model.{name}": _at_least(1)
        for name in (
            "channels",
            "blocks",
            "channels_per_head",
            "norm_groups",
            "patch_size",
            "width",
            "depth",
            "heads",
            "decoder_heads",
        )
    },
    "model.mlp_ratio": lambda value: None if value > 0 else "must be above 0",
    "model.norm_eps": _at_least(0),
    "model.timestep_scale": lambda value: None if value > 0 else "must be above 0",
    "timeout": lambda value: None if value > 0 else "must be above 0 seconds",
    "seed": lambda value: None if 0 <= value < 2**63 else "must be at least 0 and below 2**63",
    "n": _at_least(1),
    "batch_size": _at_least(1),
    "weights": _one_of("ema", "raw"),
    "sigma_rel": lambda value: (
        None if value is None or 0 < value <= 0.2886 else "must be above 0 and at most 0.2886"
    ),
    "start_t": _some_steps,
    "shared_t": _some_steps,
    "progressive": _at_least(2),
    "draw": _one_of("mean", "sample"),
    "scale": lambda value: "must not be 0" if value == 0 else None,
    "accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "format": _one_of("npz", "png", "both"),
    "checkpoint": lambda value: (
        None
        if value in ("whole", "sharded")
        else "must be whole or sharded, what is written; ckpt= names one to go on from"
    ),
    "on_nonfinite": _one_of("stop", "skip", "rollback"),
    "resume": _one_of("auto", "never"),
    "verbose": _one_of("quiet", "normal", "verbose"),
}
"""For a key, what is wrong with a value of the right type, or None."""
