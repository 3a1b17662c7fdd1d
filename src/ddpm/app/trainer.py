"""The Lightning Trainer of a run, with its callbacks and loggers, from a checked configuration."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    ProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import Profiler

from ddpm import targets
from ddpm.app import gpus_there
from ddpm.app.dashboard import shown
from ddpm.app.devices import built
from ddpm.app.lock import Lock
from ddpm.app.run_directory import Place
from ddpm.data.prepared.cache import Cache
from ddpm.diffusion.validity import check_request
from ddpm.errors import UsageError
from ddpm.evaluation.quality.during_training import SampleQuality
from ddpm.runtime.computing import Computing
from ddpm.training.callbacks.bests import Bests
from ddpm.training.callbacks.checkpoints import Checkpoints
from ddpm.training.callbacks.compilation import Compilation
from ddpm.training.callbacks.completed_steps import CompletedSteps
from ddpm.training.callbacks.continuation import Continuation
from ddpm.training.callbacks.data_wait import DataWait
from ddpm.training.callbacks.interruption import Interruption
from ddpm.training.callbacks.progress import TrainingProgress
from ddpm.training.callbacks.pruning import Pruning
from ddpm.training.callbacks.same_step import SameStep
from ddpm.training.callbacks.samples import SampleGrids
from ddpm.training.callbacks.scalars import TrainingRows
from ddpm.training.callbacks.sole_writer import SoleWriter
from ddpm.training.callbacks.time_limit import TimeLimit
from ddpm.training.checkpoints import AtomicCheckpointIO
from ddpm.training.loggers import MetricsCSV, provided
from ddpm.training.module import DDPM
from ddpm.training.profiling import profiler
from ddpm.training.trials import Trial

OURS = ("max_time", "profiler", "limit_train_batches", "overfit_batches", "fast_dev_run")
"""Settings of the trainer that reach it in another form: a callback, an object, or what the data are."""


FEW = 16
"""Samples that are measured with `trainer.fast_dev_run`: enough for every metric's defaults."""

UNFIT: dict[type[Callback], str] = {
    GradientAccumulationScheduler: "changes how a global batch is parted, and the data follow one parting; "
    "use trainer.accumulate_grad_batches",
    BatchSizeFinder: "tries batches of its own; the global batch is data.batch_size",
    LearningRateFinder: "trains before the run begins; give optimizer.lr, and sweep it with -m",
    BackboneFinetuning: "thaws an attribute `backbone` as epochs pass, and there is neither; init=RUN_DIR "
    "starts from trained weights",
    ModelPruning: "prunes when an epoch ends, and batches cross from one into the next; a callback of your "
    "own can prune the network of a finished run",
    **dict.fromkeys(
        (StochasticWeightAveraging, WeightAveraging),
        "replaces the weights that checkpoints and samples are of; use ema=exponential",
    ),
}
"""Callbacks of Lightning that would undo what a run promises, or do nothing, with what to use instead."""


def tried_out(config: dict[str, Any]) -> dict[str, Any]:
    """With `trainer.fast_dev_run`, Lightning's meaning: some steps of everything, and
    no checkpoint.
    """
    steps = int(config["trainer"]["fast_dev_run"])
    if not steps:
        return config
    trainer = {
        **config["trainer"],
        "max_steps": steps,
        "val_check_interval": steps,
        "limit_val_batches": steps,
    }
    callbacks = {}
    for name, node in config["callbacks"].items():
        if not node:
            continue
        made = targets.resolve(f"callbacks.{name}", node["_target_"])
        if _makes(made, SampleGrids):
            callbacks[name] = {**node, "every_n_steps": steps, "n": 4, "final": False}
        elif _makes(made, SampleQuality):
            callbacks[name] = {**node, "every_n_steps": steps, "n": FEW, "share": None}
        elif not _makes(made, Checkpoint, Checkpoints):
            callbacks[name] = node
    return {**config, "trainer": trainer, "logger": {}, "callbacks": callbacks}


def build_loggers(
    config: Mapping[str, Any],
    place: Place,
    data: Mapping[str, Any],
    run_id: str | None,
    choices: Mapping[str, str],
) -> list[Logger]:
    """The loggers of a run, those of the configuration first; metrics.csv is always the last.

    Args:
        config: of the run.
        place: of the run.
        data: its data set, described; shown beside the configuration.
        run_id: of the W&B run that goes on, or None.
        choices: the option of each group.

    Raises:
        UsageError: where one cannot be built.
    """
    built: list[Logger] = []
    for name, node in config["logger"].items():
        if not node:
            continue
        key = f"logger.{name}"
        made = targets.resolve(key, node["_target_"])
        _check_makes(key, node, made, Logger)
        given = provided(
            made,
            directory=place.directory,
            run_name=place.label or place.directory.name,
            group=place.sweep,
            id=run_id,
            config=shown(config, data, choices),
            tags=[str(tag) for tag in config["tags"] or ()],
        )
        typed = {
            argument: value for argument, value in node.items() if value is not None or argument not in given
        }
        given = {argument: value for argument, value in given.items() if argument not in typed}
        logger = targets.build(key, typed, **given)
        if not isinstance(logger, Logger):
            raise UsageError(f"{key}: {node['_target_']} is no Lightning logger")
        built.append(logger)
    return [*built, MetricsCSV(place.directory / "metrics.csv")]


def build_callbacks(config: Mapping[str, Any], module: DDPM, directory: Path) -> list[Callback]:
    """The callbacks that the configuration names.

    Raises:
        UsageError: where one cannot be built, or does not fit the model.
    """
    built = []
    for name, node in config["callbacks"].items():
        if not node:
            continue
        key = f"callbacks.{name}"
        made = targets.resolve(key, node["_target_"])
        for unfit, why in UNFIT.items():
            if _makes(made, unfit):
                raise UsageError(f"{key}: {made.__name__} {why}")
        _check_makes(key, node, made, Callback)
        beside = {}
        if "dirpath" in inspect.signature(made).parameters and not node.get("dirpath"):
            beside["dirpath"] = str(directory / "checkpoints")
        callback = targets.build(key, node, **beside)
        if not isinstance(callback, Callback):
            raise UsageError(f"{key}: {node['_target_']} is no Lightning callback")
        if isinstance(callback, SampleGrids):
            try:
                check_request(
                    schedule=module.schedule,
                    sampler=callback.sampler,
                    guidance=module.guidance,
                    num_classes=module.num_classes,
                    condition_drop=module.condition_drop,
                )
            except ValueError as error:
                raise UsageError(f"{key}.{error}") from error
        built.append(callback)
    return built


def _check_makes(key: str, node: Mapping[str, Any], made: Any, kind: type) -> None:
    """Refuse a class of another kind before it is built: some write where they are."""
    if isinstance(made, type) and not issubclass(made, kind):
        raise UsageError(f"{key}: {node['_target_']} is no Lightning {kind.__name__.lower()}")


def _makes(made: Any, *kinds: type) -> bool:
    """Whether what a `_target_` names is a class of one of these kinds."""
    return isinstance(made, type) and issubclass(made, kinds)


def build_trainer(
    config: Mapping[str, Any],
    directory: Path,
    callbacks: list[Callback],
    loggers: list[Logger],
    computing: Computing,
    limit_val_batches: int | None = None,
    interruption: Interruption | None = None,
    lock: Lock | None = None,
) -> Trainer:
    """The trainer of a run.

    Args:
        config: of the run.
        directory: of the run.
        callbacks: of the configuration; a progress bar of Lightning's among them takes the place of ours.
        loggers: of the run.
        computing: how the network is computed.
        limit_val_batches: of each validation; None for all.
        interruption: by signals; None for one that hears none.
        lock: on the directory, in the process that writes there.

    Raises:
        UsageError: where there are no such devices, or Lightning refuses its settings.
    """
    gpus_there.check(config["trainer"])
    given = {name: value for name, value in config["trainer"].items() if name not in OURS}
    settings = config["trainer"]
    interval, max_steps = settings["val_check_interval"], settings["max_steps"]
    # Lightning counts batches; and a run shorter than the interval is measured at its end
    batches = (min(interval, max_steps) if max_steps > 0 else interval) * settings["accumulate_grad_batches"]
    given |= {"val_check_interval": batches, "precision": computing.precision}
    given["limit_val_batches"] = limit_val_batches
    given["gradient_clip_val"] = settings["gradient_clip_val"] or None
    shows_progress = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if shows_progress:
        callbacks = [callback for callback in callbacks if not isinstance(callback, TrainingProgress)]
    waiting = DataWait()
    # a checkpoint is the state right after an optimizer step: what else belongs to the step comes behind it
    saving = [callback for callback in callbacks if isinstance(callback, Checkpoints)]
    others = [callback for callback in callbacks if not isinstance(callback, Checkpoints)]
    own: list[Callback] = [CompletedSteps(), SameStep(), *([SoleWriter(lock.is_lost)] if lock else [])]
    own += [Continuation(), *saving, TrainingRows(waiting), *others, Bests()]
    own += [interruption or Interruption(), waiting]
    if computing.compile:
        own.insert(0, Compilation(Cache().directory / "compiled", cuda_graphs=computing.cuda_graphs))
    if settings["max_time"] is not None:
        own.append(targets.called("trainer.max_time", TimeLimit, settings["max_time"]))
    if (trial := Trial.of_this_process()) is not None:
        own.append(Pruning(trial))
    return built(
        config,
        given,
        directory,
        plugins=[AtomicCheckpointIO(background=True)],
        enable_progress_bar=shows_progress,
        profiler=_profiler(settings["profiler"], directory),
        logger=loggers,
        callbacks=own,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in own),
    )


def _profiler(node: str | Mapping[str, Any] | None, directory: Path) -> Profiler:
    """The profiler that a configuration names or describes; its report goes into the run directory."""
    if not isinstance(node, Mapping):
        return profiler(node, directory)
    key = "trainer.profiler"
    made = targets.resolve(key, node["_target_"])
    _check_makes(key, node, made, Profiler)
    takes = inspect.signature(made).parameters
    given = {"dirpath": str(directory), "filename": "profile"}
    built = targets.build(
        key, node, **{name: given[name] for name in given if name in takes and node.get(name) is None}
    )
    if not isinstance(built, Profiler):
        raise UsageError(f"{key}: {node['_target_']} is no Lightning profiler")
    return built
