"""The run directory of a model that was trained elsewhere: whole, or not there."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from ddpm.diffusion import schedules
from ddpm.diffusion.guidance import NoGuidance
from ddpm.diffusion.samplers import Ancestral
from ddpm.diffusion.timesteps import Uniform
from ddpm.interop.foreign import Foreign, target
from ddpm.training import checkpoints
from ddpm.training.ema import EMA
from ddpm.training.lr_schedules import warmup

GROUPS = ("schedule", "objective", "variance", "weighting", "model")
"""Groups of a configuration that a model of others decides."""


def write(
    run_dir: Path, model: Foreign, averaged: Mapping[str, Tensor], raw: Mapping[str, Tensor] | None = None
) -> Path:
    """Write a run at step 0 which knows no data but the shape and the classes of the images.

    Its config.yaml is the program's default training recipe around what is known of the model. Betas that
    none of our schedules has are listed in a betas.txt, which then has to stay where it is.

    Args:
        run_dir: a directory that is empty or does not exist yet.
        model: what it is.
        averaged, raw: states of our network; None for the same.

    Returns:
        `run_dir`, absolute.

    Raises:
        ValueError: where the directory is in use, a weight is not finite, or the disk has no room.
    """
    run_dir = Path(os.path.expanduser(run_dir)).absolute()
    raw = averaged if raw is None else raw
    for name, weight in [*averaged.items(), *raw.items()]:
        if not torch.isfinite(weight).all():
            raise ValueError(f"the weights hold numbers that are not finite (in {name})")
    size = 4 * sum(weight.numel() for weight in averaged.values())
    with claimed(run_dir, size if raw is averaged else 2 * size):
        config = dict(model.config)
        if model.betas is not None:
            file = run_dir / "betas.txt"
            file.write_text("".join(f"{beta!r}\n" for beta in model.betas), encoding="utf-8")
            config["schedule"] = target(schedules.from_file, path=str(file))
        if config.pop("zero_terminal_snr", False):
            config["schedule"] = {**config["schedule"], "zero_terminal_snr": True}
        config["conditional"] = model.classes is not None
        _write_checkpoint(run_dir, model, averaged, raw, config)
        _write_config(run_dir, model, config)
    return run_dir


@contextmanager
def claimed(directory: Path, size: int) -> Iterator[None]:
    """A new directory with room for so many bytes, which is gone again where what fills it fails.

    Raises:
        ValueError: where it is in use, or the disk has no room.
    """
    if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
        raise ValueError(f"{directory}: exists already; name a new directory")
    made = [parent for parent in (directory, *directory.parents) if not parent.exists()]
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise ValueError(f"{directory}: needs {size / 1e9:.1f} GB, and its disk has {free / 1e9:.1f} GB free")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException as error:
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for parent in made:
            parent.rmdir()
        if isinstance(error, OSError):
            raise ValueError(
                f"{directory}: cannot be written ({error.strerror}); nothing of it is left"
            ) from error
        raise


def _write_checkpoint(
    run_dir: Path,
    model: Foreign,
    averaged: Mapping[str, Tensor],
    raw: Mapping[str, Tensor],
    config: Mapping[str, Any],
) -> None:
    unsaid = _unsaid()
    checkpoint = {
        "state_dict": {f"network.{name}": weight for name, weight in raw.items()},
        "ema": {"num_updates": 0, "parameters": dict(averaged)},
        "config": {**unsaid, **config},
        "data": {
            "image_shape": list(model.image_shape),
            "classes": model.classes,
            "num_train": 0,
            "num_validation": 0,
            "fingerprint": None,
            **({} if model.latents is None else {"latents": model.latents}),
        },
        "global_step": 0,
        "wandb_id": None,
    }
    checkpoints.write(checkpoint, run_dir / "checkpoints" / checkpoints.LAST)


def _unsaid() -> dict[str, Any]:
    """The rest of what a run is loaded from, which no model says: the paper's."""
    return {
        "timesteps": target(Uniform),
        "sampler": target(Ancestral),
        "guidance": target(NoGuidance),
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 2e-4, "fused": True},
        "lr_schedule": target(warmup),
        "ema": target(EMA),
        "seed": 0,
    }


def _write_config(run_dir: Path, model: Foreign, config: Mapping[str, Any]) -> None:
    head = "# python train.py --config-dir HERE --config-name config init=HERE data.path=IMAGES  trains on\n"
    groups = [group for group in (*GROUPS, "sampler") if group in config]
    replaced = [{f"override {group}": None} for group in groups]
    source = "folder" if model.latents is None else "latents"
    defaults = ["train", *replaced, {"override data": source}, {"override experiment": None}, "_self_"]
    channels, height, width = model.image_shape
    data = dict(config.get("data", {}))
    if model.latents is None:
        data |= {"image_size": [height, width], "channels": channels}
    else:
        data |= {name: model.latents[name] for name in ("scale", "shift", "vae")}  # as the network knows them
    body = yaml.safe_dump({"defaults": defaults, **config, "data": data}, sort_keys=False)
    (run_dir / "config.yaml").write_text(head + body, encoding="utf-8")
