"""What train.py does once its configuration is checked."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ddpm.app import terminal
from ddpm.app.build import build, build_data, build_module, describe
from ddpm.app.command_line import Job
from ddpm.app.errors import UsageError
from ddpm.app.run_directory import Place
from ddpm.app.run_record import RunRecord
from ddpm.data.module import ImageDataModule, share
from ddpm.training import checkpoints
from ddpm.training.interruption import Interrupted, Interruption
from ddpm.training.loggers import MetricsCSV, WandbLogger
from ddpm.training.metrics import TrainingRows
from ddpm.training.module import DDPM
from ddpm.training.progress import duration

log = logging.getLogger(__name__)

CONTINUED = ("seed", "data", "schedule", "objective", "variance", "model")
"""Groups that must be as in the checkpoint for a run to continue; where they differ it would be another
run.
"""

FREE = ("data.path", "data.cache_dir", "data.device_share", "data.num_workers")
"""Keys of them that may differ all the same: the pictures are compared by their contents."""


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Build everything that training needs, and find what is wrong with it. Writes nothing.

    Raises:
        UsageError: where the configuration cannot be trained.
    """
    terminal.set_up(None, leader=_is_leader())
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs; the CPU computes in float32 regardless
    if config["ckpt"] and config["init"]:
        raise UsageError(
            "ckpt and init: give one; ckpt continues a run, init starts a new one from its weights"
        )
    data = build_data(config)
    description = describe(data)
    ckpt_path, checkpoint = _find(config["ckpt"] or config["init"])
    if config["ckpt"]:
        _check_continues(config, description, ckpt_path, checkpoint)
    module = build_module(config, description)
    if config["init"]:
        _start_from(module, ckpt_path, checkpoint)

    directory = place.directory
    csv = MetricsCSV(directory / "metrics.csv")
    wandb = _build_wandb(config, place, checkpoint if config["ckpt"] else None)
    trainer = _build_trainer(config, directory, [csv, wandb] if wandb else [csv])
    try:
        share(data.batch_size, world_size=trainer.world_size, accumulation=trainer.accumulate_grad_batches)
    except ValueError as error:
        raise UsageError(str(error)) from error

    def job() -> int:
        if trainer.is_global_zero and config["ckpt"]:
            earlier = ckpt_path.parents[1] / "metrics.csv"
            if earlier.exists():
                csv.continue_from(earlier, checkpoint["global_step"])
        return _fit(trainer, module, data, directory, wandb, ckpt_path if config["ckpt"] else None)

    return job


def _fit(
    trainer: Trainer,
    module: DDPM,
    data: ImageDataModule,
    directory: Path,
    wandb: WandbLogger | None,
    ckpt_path: Path | None,
) -> int:
    leader = trainer.is_global_zero
    terminal.set_up(directory / "train.log", leader=leader)
    warnings.filterwarnings("ignore", module="lightning")
    record = None
    if leader:
        _write_config(directory, module.config)
        record = RunRecord(directory, _known(trainer, module, ckpt_path))
        _announce(trainer, module, data, directory)
    status, exit_code = "failed", 1
    try:
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        status, exit_code = "finished", 0
    except Interrupted as interruption:
        status = "interrupted"
        # a rank that Lightning started and that ends with another code would have the leader killed
        exit_code = 128 + interruption.signum if leader else 0
    except BaseException:
        log.exception("training failed at step %d", trainer.global_step)
        raise
    finally:
        if record is not None:
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            record.end(
                status,
                exit_code=exit_code,
                step=trainer.global_step,
                metrics=metrics,
                objective=metrics.get("val/loss"),
                wandb_id=wandb.run_id if wandb else None,
            )
        if wandb is not None:
            wandb.finish(exit_code)
    if record is not None:
        terminal.say(_last_screen(directory, status, record, wandb))
    return exit_code


def _build_trainer(config: dict[str, Any], directory: Path, loggers: list) -> Trainer:
    settings = dict(config["trainer"])
    accumulation = settings.get("accumulate_grad_batches", 1)
    settings["val_check_interval"] = settings["val_check_interval"] * accumulation  # Lightning counts batches
    chosen: list[Callback] = [
        build(config["callbacks"], name) for name, settings in config["callbacks"].items() if settings
    ]
    try:
        return build(
            {"trainer": settings},
            "trainer",
            strategy=build(config, "strategy"),
            logger=loggers,
            callbacks=[TrainingRows(), *chosen, Interruption()],
            plugins=[checkpoints.AtomicCheckpointIO(), *_cluster()],
            default_root_dir=str(directory),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except MisconfigurationException as error:
        raise UsageError(f"trainer: {error}") from error


def _cluster() -> list[SLURMEnvironment]:
    """SLURM without Lightning's own requeueing, which would write where another job may be writing."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _build_wandb(
    config: dict[str, Any], place: Place, continued: dict[str, Any] | None
) -> WandbLogger | None:
    settings = dict(config["logger"])
    if "_target_" not in settings:
        return None
    if settings.get("name") is None:
        settings["name"] = place.directory.name
    if settings.get("group") is None:
        settings["group"] = place.sweep
    run_id = continued.get("wandb_id") if continued else None
    return build({"logger": settings}, "logger", directory=place.directory, config=config, id=run_id)


def _find(path: str | None) -> tuple[Path, dict[str, Any]]:
    if not path:
        return Path(), {}
    try:
        return checkpoints.find(Path(path))
    except checkpoints.CheckpointError as error:
        raise UsageError(str(error)) from error


def _check_continues(
    config: dict[str, Any], data: dict[str, Any], path: Path, checkpoint: dict[str, Any]
) -> None:
    step, max_steps = checkpoint["global_step"], config["trainer"]["max_steps"]
    if 0 <= max_steps <= step:
        raise UsageError(
            f"trainer.max_steps={max_steps}: the run in ckpt={path} is at step {step} already; "
            "give a higher trainer.max_steps to train on"
        )
    differing = [
        f"{key} is {here!r} here and {there!r} in the checkpoint"
        for group in CONTINUED
        for key, here, there in _differences(group, config.get(group), checkpoint["config"].get(group))
        if key not in FREE
    ]
    if data["fingerprint"] != checkpoint["data"]["fingerprint"]:
        differing.append("the pictures are not those that it was trained on")
    if differing:
        own = path.parents[1]
        raise UsageError(
            f"ckpt={path}: belongs to another run: {differing[0]}. Continue it with its own configuration "
            f"(--config-dir {own} --config-name config ckpt={own}), or start a new run from its weights "
            f"with init="
        )


def _differences(key: str, here: Any, there: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(there, dict):
        return [
            difference
            for name in sorted({*here, *there})
            for difference in _differences(f"{key}.{name}", here.get(name), there.get(name))
        ]
    return [] if here == there else [(key, here, there)]


def _start_from(module: DDPM, path: Path, checkpoint: dict[str, Any]) -> None:
    """Take over the averaged weights of a checkpoint, for the network and its average alike."""
    own = dict(module.network.named_parameters())
    theirs = checkpoint["ema"]["parameters"]
    for name in sorted({*own, *theirs}):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"init={path}: is of another network: {name} is {shapes[0]} in this one and {shapes[1]} "
                f"there; "
                "choose the model that it was trained with"
            )
    module.network.load_state_dict(theirs, strict=False)
    module.ema.load_state_dict({"num_updates": 0, "parameters": theirs})


def _is_leader() -> bool:
    from ddpm.app.command_line import is_leader

    return is_leader()


def _write_config(directory: Path, config: dict[str, Any] | None) -> None:
    head = "# python train.py --config-dir THIS_DIRECTORY --config-name config  runs the same again\n"
    choices = HydraConfig.get().runtime.choices
    slug = ",".join(str(choices[group]) for group in ("data", "schedule", "model") if group in choices)
    hydra = {"job": {"name": "train"}, "run": {"dir": f"${{run_dir:train,{slug}}}"}}
    body = yaml.safe_dump({"defaults": ["run", "_self_"], **(config or {}), "hydra": hydra}, sort_keys=False)
    (directory / "config.yaml").write_text(head + body)


def _known(trainer: Trainer, module: DDPM, ckpt_path: Path | None) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "parameters": sum(parameter.numel() for parameter in module.network.parameters()),
        "data": module.data,
        "devices": {"kind": name, "number": trainer.world_size, "nodes": trainer.num_nodes},
        "precision": trainer.precision,
        "continued_from": str(ckpt_path) if ckpt_path else None,
        "overrides": list(HydraConfig.get().overrides.task),
    }


def _announce(trainer: Trainer, module: DDPM, data: ImageDataModule, directory: Path) -> None:
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    channels, height, width = data.image_shape
    on = trainer.strategy.root_device.type.upper()
    log.info("run directory  %s", _readable(directory))
    log.info(
        "data           %d pictures of %dx%dx%d to train on, %d held out",
        len(data.data_set.train), height, width, channels, len(data.data_set.validation),
    )  # fmt: skip
    log.info("network        %s parameters", f"{parameters:,}")
    log.info(
        "training       %d steps of %d pictures on %d %s%s",
        trainer.max_steps, data.batch_size, trainer.world_size, on, "s" * (trainer.world_size > 1),
    )  # fmt: skip


def _last_screen(directory: Path, status: str, record: RunRecord, wandb: WandbLogger | None) -> str:
    shown = _readable(directory)
    values = record.values
    metrics = "  ".join(f"{k} {v:.4f}" for k, v in values["metrics"].items() if k.endswith("/loss"))
    grids = sorted((directory / "samples").glob("step_*.png"))
    lines = [
        "",
        f"{status} at step {values['step']} after {duration(values['wall_seconds'])}  {metrics}",
        f"  everything    {shown}",
    ]
    if grids:
        lines.append(f"  samples       {_readable(grids[-1])}")
    lines.append(f"  checkpoint    {_readable(directory / 'checkpoints' / checkpoints.LAST)}")
    if wandb is not None and wandb.mode == "offline":
        lines.append(f"  dashboard     wandb sync {shown}/wandb/offline-run-*")
    lines.append(f"  sample it     python sample.py ckpt={shown}")
    if status != "finished":
        lines.append(
            f"  continue it   python train.py --config-dir {shown} --config-name config ckpt={shown}"
        )
    return "\n".join(lines)


def _readable(path: Path) -> str:
    """As short as it can be typed from where the user stands."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
