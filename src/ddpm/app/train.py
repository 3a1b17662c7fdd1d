"""What train.py does once its configuration is checked."""

import logging
import os
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ddpm import targets
from ddpm.app import check, terminal
from ddpm.app.build import build, build_data, build_module, describe
from ddpm.app.check import SWITCHES
from ddpm.app.command_line import Job, is_leader
from ddpm.app.inspect import contact_sheet, some_of
from ddpm.app.preflight import preflight
from ddpm.app.run_directory import Place, number_of_processes
from ddpm.app.run_record import RunRecord
from ddpm.data.cache import Cache
from ddpm.data.module import ImageDataModule
from ddpm.diffusion.validity import check_request, check_weights
from ddpm.errors import UsageError
from ddpm.runtime.computing import Computing, choose
from ddpm.runtime.device import trains_on
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.progress import duration
from ddpm.training import checkpoints
from ddpm.training.callbacks.compilation import Compilation
from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.callbacks.data_wait import DataWait
from ddpm.training.callbacks.interruption import Interrupted, Interruption
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.callbacks.time_limit import TimeLimit
from ddpm.training.ending import why_it_ended
from ddpm.training.loggers import MetricsCSV, WandbLogger, log_picture, provided
from ddpm.training.module import DDPM
from ddpm.training.profiling import profiler

log = logging.getLogger(__name__)

CONTINUED = (
    "seed", "data", "schedule", "objective", "variance", "weighting", "timesteps", "model", "conditional",
    "optimizer", "ema_decay", "trainer.accumulate_grad_batches",
)  # fmt: skip
"""What must be as in the checkpoint for a run to continue; where it differs it would be another run."""

FREE = (
    "data.path", "data.cache_dir", "data.device_share", "data.num_workers",
    "model.compile", "model.channels_last",
)  # fmt: skip
"""Keys of them that may differ all the same: the pictures are compared by their contents."""


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Build everything that training needs, and find what is wrong with it. Writes nothing.

    Raises:
        UsageError: where the configuration cannot be trained.
    """
    terminal.set_up(None, leader=is_leader())
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs
    if config["ckpt"] and config["init"]:
        raise UsageError(
            "ckpt and init: give one; ckpt continues a run, init starts a new one from its weights"
        )
    data = build_data(config)
    description = describe(data)
    directory, resume = place.directory, None
    if config["ckpt"]:
        resume = _resume(config, description)
    module = build_module(config, description)
    computing = _choose_computing(config, module)
    if config["init"]:
        _start_from(module, config["init"])

    csv = MetricsCSV(directory / "metrics.csv")
    loggers = [*_build_loggers(config, description, place, resume), csv]
    wandb = next((logger for logger in loggers if isinstance(logger, WandbLogger)), None)
    trainer = _build_trainer(config, directory, module, loggers, computing)
    processes = number_of_processes()
    if processes > 1 and trainer.world_size != processes:
        raise UsageError(
            f"trainer.devices: {processes} processes were started, and the trainer was told of "
            f"{trainer.world_size}; give trainer.devices=PROCESSES_A_NODE trainer.num_nodes=NODES"
        )
    if trainer.world_size > 1 and processes == 1 and '"' in str(directory):
        raise UsageError(
            f"hydra.run.dir={directory}: several devices cannot work in a path with a quotation mark"
        )
    try:
        data.check_shared(world_size=trainer.world_size, accumulation=trainer.accumulate_grad_batches)
    except ValueError as error:
        raise UsageError(str(error)) from error

    if trainer.strategy.root_device.type == "cpu":
        keep_freed_memory()

    if config["preflight"]:
        return lambda: (
            preflight(trainer, module, data, computing, resume.step if resume else 0) if is_leader() else 0
        )

    def job() -> int:
        if trainer.is_global_zero and resume:
            resume.take_over_history(csv)
        return _fit(trainer, module, data, place, wandb, resume, computing)

    return job


@dataclass(frozen=True)
class _Resume:
    """The checkpoint that a run goes on from."""

    path: Path
    step: int
    wandb_id: str | None

    @property
    def run(self) -> Path | None:
        """The run directory that the file lies in, if it lies in one."""
        return self.path.parents[1] if self.path.parent.name == "checkpoints" else None

    def take_over_history(self, csv: MetricsCSV) -> None:
        """Begin metrics.csv with the rows up to this step; in the same directory drop what came later."""
        if self.run is None:
            return
        if (self.run / "metrics.csv").exists():
            csv.continue_from(self.run / "metrics.csv", self.step)
        if csv.path.parent == self.run:
            for step, later in checkpoints.numbered(self.path.parent).items():
                if step > self.step:
                    later.unlink()


def _fit(
    trainer: Trainer,
    module: DDPM,
    data: ImageDataModule,
    place: Place,
    wandb: WandbLogger | None,
    resume: _Resume | None,
    computing: Computing,
) -> int:
    leader, directory = trainer.is_global_zero, place.directory
    terminal.set_up(directory / "train.log", leader=leader)
    warnings.filterwarnings("ignore", module="lightning")
    record = None
    if leader:
        _write_config(directory, module.config)
        data.write_skipped(directory)
        record = RunRecord(directory, _known(trainer, module, place, resume, computing))
        _announce(trainer, module, data, directory, computing)
        for logger in trainer.loggers:
            logger.log_hyperparams(_shown(module.config, module.data))
        if resume is None and len(shown := some_of(data)):
            for logger in trainer.loggers:
                log_picture(logger, "data/contact_sheet", contact_sheet(shown), step=0)
    status, exit_code = "failed", 1
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume.path if resume else None)
        status, exit_code = "finished", 0
    except Interrupted as interruption:
        status = "interrupted"
        # a rank that Lightning started and that ends with another code would have the leader killed
        exit_code = 128 + interruption.signum if leader else 0
    except Exception:
        log.exception("training failed at step %d", trainer.global_step)
    finally:
        if record is not None:
            data.write_skipped(directory)  # a stream finds more as it goes
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            record.end(
                status,
                exit_code=exit_code,
                step=trainer.global_step,
                metrics=metrics,
                why=why_it_ended(trainer) if status == "finished" else None,
                objective=metrics.get("val/loss"),
                wandb_id=wandb.run_id if wandb else None,
            )
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.finish(exit_code)
    if record is not None:
        terminal.say(_last_screen(directory, status, record, wandb, trainer.max_steps))
    return exit_code


def _choose_computing(config: dict[str, Any], module: DDPM) -> Computing:
    """How the network shall be computed; it is laid out here, as no optimizer refers to its weights yet."""
    computing = choose(
        trains_on(config["trainer"]["accelerator"]),
        sum(parameter.numel() for parameter in module.network.parameters()),
        config["trainer"]["max_steps"],
        precision=config["trainer"]["precision"],
        **{name: config["model"].get(name) for name in SWITCHES["model"]},
    )
    module.compute_as(computing)
    return computing


def _build_trainer(
    config: dict[str, Any], directory: Path, module: DDPM, loggers: list, computing: Computing
) -> Trainer:
    settings = {**config["trainer"], "precision": computing.precision}
    max_time = settings.pop("max_time", None)
    interval, max_steps = settings["val_check_interval"], settings["max_steps"]
    # Lightning counts batches; and a run shorter than the interval is measured at its end
    batches = (min(interval, max_steps) if max_steps > 0 else interval) * settings["accumulate_grad_batches"]
    settings["val_check_interval"] = batches
    waiting = DataWait()
    callbacks: list[Callback] = [CompletedSteps(), TrainingRows(waiting)]
    callbacks += [*_build_callbacks(config, module, directory), Interruption(), waiting]
    if computing.compile:
        callbacks.insert(0, Compilation(Cache().directory / "compiled"))
    try:
        if max_time is not None:
            callbacks.append(TimeLimit(max_time))
        return build(
            {"trainer": settings},
            "trainer",
            profiler=profiler(settings.pop("profiler", None), directory),
            strategy=build(config, "strategy"),
            logger=loggers,
            callbacks=callbacks,
            plugins=[checkpoints.AtomicCheckpointIO(), *_cluster()],
            default_root_dir=str(directory),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {error}") from error


def _build_callbacks(config: dict[str, Any], module: DDPM, directory: Path) -> list[Callback]:
    built = []
    for name, settings in config["callbacks"].items():
        if not settings or "_target_" not in settings:  # an experiment may set what one that is off would do
            continue
        takes = targets.parameters(f"callbacks.{name}", settings["_target_"])
        where = {"dirpath": str(directory / "checkpoints")} if "dirpath" in takes.names else {}
        callback = build({name: {**where, **settings}}, name)
        if not isinstance(callback, Callback):
            raise UsageError(f"callbacks.{name}: {settings['_target_']} is no Lightning callback")
        if isinstance(callback, SampleGrids):
            try:
                check_request(
                    schedule=module.schedule,
                    sampler=callback.sampler,
                    guidance=module.guidance,
                    num_classes=module.num_classes,
                )
            except ValueError as error:
                raise UsageError(f"callbacks.{name}.{error}") from error
        built.append(callback)
    return built


def _cluster() -> list[SLURMEnvironment]:
    """SLURM without Lightning's own requeueing, which would write where another job may be writing."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _build_loggers(
    config: dict[str, Any], data: dict[str, Any], place: Place, resume: _Resume | None
) -> list[Logger]:
    """Each entry of `logger`, with what the run provides where the entry says nothing."""
    built = []
    for name, settings in config["logger"].items():
        if not settings or "_target_" not in settings:
            continue
        given = provided(
            targets.resolve(f"logger.{name}", settings["_target_"]),
            directory=place.directory,
            run_name=place.directory.name,
            group=place.sweep,
            id=resume.wandb_id if resume else None,
            config=_shown(config, data),
            tags=config.get("tags") or (),
        )
        for argument, value in settings.items():
            if value is not None:
                given.pop(argument, None)
        settings = {key: value for key, value in settings.items() if key not in given}
        try:
            logger = build({f"logger.{name}": settings}, f"logger.{name}", **given)
        except UsageError:
            raise
        except Exception as error:  # another library's own, of a server that does not answer
            raise UsageError(f"logger.{name}: {str(error).splitlines()[0]}") from error
        if not isinstance(logger, Logger):
            raise UsageError(f"logger.{name}: {settings['_target_']} is no Lightning logger")
        built.append(logger)
    return built


def _shown(config: dict[str, Any] | None, data: dict[str, Any] | None) -> dict[str, Any]:
    """What a dashboard shows beside a run."""
    return {**(config or {}), "data_set": data}


def _find(key: str, path: str) -> tuple[Path, dict[str, Any]]:
    try:
        return checkpoints.find(Path(path), key)
    except checkpoints.CheckpointError as error:
        raise UsageError(str(error)) from error


def _resume(config: dict[str, Any], data: dict[str, Any]) -> _Resume:
    """The checkpoint of `ckpt=`, which must belong to the run that the configuration describes."""
    path, checkpoint = _find("ckpt", config["ckpt"])
    resume = _Resume(path, checkpoint["global_step"], checkpoint.get("wandb_id"))
    max_steps = config["trainer"]["max_steps"]
    if 0 <= max_steps <= resume.step:
        raise UsageError(
            f"trainer.max_steps={max_steps}: the run in ckpt={path} is at step {resume.step} already; "
            "give a higher trainer.max_steps to train on"
        )
    differing = [
        f"{key} is {here!r} here and {there!r} in the checkpoint"
        for name in CONTINUED
        for key, here, there in _differences(name, _select(config, name), _select(checkpoint["config"], name))
        if key not in FREE
    ]
    if data["fingerprint"] != checkpoint["data"]["fingerprint"]:
        differing.append("the pictures are not those that it was trained on")
    if differing:
        own = resume.run
        with_its_own = f" (--config-dir {own} --config-name config ckpt={own})" if own else ""
        raise UsageError(
            f"ckpt={path}: belongs to another run: {differing[0]}. Continue it with its own "
            f"configuration{with_its_own}, or start a new run from its weights with init="
        )
    total_steps = config["optimizer"].get("total_steps")
    if total_steps is not None and max_steps > total_steps:
        raise UsageError(
            f"trainer.max_steps={max_steps}: the learning rate of this run falls to 0 at step {total_steps}; "
            "start a new run from its weights with init="
        )
    return resume


def _select(config: Mapping[str, Any], name: str) -> Any:
    """The value at a dotted name, or None."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _differences(key: str, here: Any, there: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(here, dict) and isinstance(there, dict):
        return [
            difference
            for name in sorted({*here, *there})
            for difference in _differences(f"{key}.{name}", here.get(name), there.get(name))
        ]
    return [] if here == there else [(key, here, there)]


def _start_from(module: DDPM, init: str) -> None:
    """Take over the averaged weights of a checkpoint, for the network and its average alike."""
    path, checkpoint = _find("init", init)
    config, data = checkpoint["config"], checkpoint["data"]
    variance = {"variance": config["variance"]}
    check.check_keys(variance, variance)
    try:
        check_weights(
            variance=module.variance,
            num_classes=module.num_classes,
            their_variance=build(variance, "variance"),
            their_num_classes=len(data["classes"]) if config["conditional"] else None,
        )
    except ValueError as error:
        raise UsageError(f"init={path}: {error}") from error
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


def _write_config(directory: Path, config: dict[str, Any] | None) -> None:
    head = "# python train.py --config-dir THIS_DIRECTORY --config-name config  runs the same again\n"
    choices = HydraConfig.get().runtime.choices
    slug = ",".join(str(choices[group]) for group in ("data", "schedule", "model") if group in choices)
    hydra = {"job": {"name": "train"}, "run": {"dir": f"${{run_dir:train,{slug}}}"}}
    values = {name: value for name, value in (config or {}).items() if name != "allow_targets"}
    body = yaml.safe_dump({"defaults": ["run", "_self_"], **values, "hydra": hydra}, sort_keys=False)
    (directory / "config.yaml").write_text(head + body)


def _known(
    trainer: Trainer, module: DDPM, place: Place, resume: _Resume | None, computing: Computing
) -> dict[str, Any]:
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "command": list(place.command),
        "parameters": sum(parameter.numel() for parameter in module.network.parameters()),
        "data": module.data,
        "devices": {"kind": name, "number": trainer.world_size, "nodes": trainer.num_nodes},
        **asdict(computing),
        "continued_from": str(resume.path) if resume else None,
        "overrides": list(HydraConfig.get().overrides.task),
    }


def _announce(
    trainer: Trainer, module: DDPM, data: ImageDataModule, directory: Path, computing: Computing
) -> None:
    parameters = sum(parameter.numel() for parameter in module.network.parameters())
    channels, height, width = data.image_shape
    on = trainer.strategy.root_device.type.upper()
    log.info("run directory  %s", _readable(directory))
    log.info(
        "data           %d pictures of %dx%dx%d to train on, %d held out",
        len(data.data_set.train), height, width, channels, len(data.data_set.validation),
    )  # fmt: skip
    log.info("network        %s parameters, computed in %s", f"{parameters:,}", computing)
    log.info(
        "training       %d steps of %d pictures on %d %s%s",
        trainer.max_steps, data.batch_size, trainer.world_size, on, "s" * (trainer.world_size > 1),
    )  # fmt: skip


def _last_screen(
    directory: Path, status: str, record: RunRecord, wandb: WandbLogger | None, max_steps: int
) -> str:
    shown = shlex.quote(_readable(directory))
    values = record.values
    metrics = "  ".join(f"{k} {v:.4f}" for k, v in values["metrics"].items() if k.endswith("/loss"))
    grids = sorted((directory / "samples").glob("step_*.png"))
    lines = [
        "",
        f"{status} at step {values['step']} after {duration(values['wall_seconds'])}  {metrics}",
        *([f"  because       {values['why']}"] if values.get("why") and values["step"] != max_steps else []),
        f"  everything    {shown}",
    ]
    if grids:
        lines.append(f"  samples       {_readable(grids[-1])}")
    if (directory / "checkpoints" / checkpoints.LAST).exists():
        lines.append(f"  checkpoint    {shown}/checkpoints/{checkpoints.LAST}")
    if wandb is not None and wandb.sync_dir is not None:
        lines.append(f"  dashboard     wandb sync {shlex.quote(_readable(wandb.sync_dir))}")
    lines.append(f"  sample it     python sample.py ckpt={shown}")
    lines.append(f"  measure it    python evaluate.py ckpt={shown}")
    if status != "finished" and not 0 <= max_steps <= values["step"]:
        lines.append(
            f"  continue it   python train.py --config-dir {shown} --config-name config ckpt={shown}"
        )
    return "\n".join(lines)


def _readable(path: Path) -> str:
    """As short as it can be typed from where the user stands."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
