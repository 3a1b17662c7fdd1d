"""What train.py does once its configuration is checked."""

import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from ddpm import targets
from ddpm.app import continuing, dashboard, micro_batch, refusal, screens, terminal
from ddpm.app.build import build_data, describe
from ddpm.app.check import SHARDED
from ddpm.app.command_line import Job
from ddpm.app.continuing import Resume, logged_before
from ddpm.app.devices import check_processes
from ddpm.app.grammar import absolute
from ddpm.app.groups import SWITCHES
from ddpm.app.left_run import logged_offline
from ddpm.app.preflight import preflight
from ddpm.app.run_directory import Place, is_leader
from ddpm.app.run_record import RunRecord, known, logged_to, write_config
from ddpm.app.same_run import identity
from ddpm.app.trainer import build_callbacks, build_loggers, build_trainer, tried_out
from ddpm.app.watch import Watch
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.evaluation.quality.during_training import SampleQuality
from ddpm.runtime.computing import Computing, choose
from ddpm.runtime.device import device_of
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.writing import FULL, write_again
from ddpm.sampling.conditions import HeldOut
from ddpm.sampling.contact_sheet import contact_sheet
from ddpm.training.building import build_module
from ddpm.training.callbacks.same_run import SameRun
from ddpm.training.checkpoints.layout import first_not_finite
from ddpm.training.ending import Ending, Interrupted, Pruned, TrainingError, ending
from ddpm.training.guides import with_guide
from ddpm.training.loggers import (
    MetricsCSV,
    WandbLogger,
    log_card,
    log_columns,
    log_picture,
    log_summary,
    may_fail,
)
from ddpm.training.module import DDPM
from ddpm.training.nonfinite.guard import NonFiniteError, Rollback
from ddpm.training.nonfinite.rollback import fit
from ddpm.training.sharding import FullySharded
from ddpm.training.torchrun import meet_anew

log = logging.getLogger(__name__)


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Build everything that training needs, and find what is wrong with it. Writes nothing.

    Raises:
        UsageError: where the configuration cannot be trained.
    """
    watch = Watch(place, config["timeout"], requeues=config["requeue"])
    watch.begin()
    try:
        return _prepare(config, place, watch)
    except BaseException:
        watch.close()
        raise


def _prepare(config: dict[str, Any], place: Place, watch: Watch) -> Job:
    terminal.set_up(None, leader=is_leader(), verbose=config["verbose"])
    torch.set_float32_matmul_precision("high")  # TF32 on GPUs
    config = tried_out(config)
    data = build_data(config)
    if limit := config["trainer"]["overfit_batches"] or config["trainer"]["limit_train_batches"]:
        try:
            data.train_on(limit)
        except ValueError as error:
            raise UsageError(str(error)) from error
    limit_val_batches = _validation(config, data)
    resume = continuing.resume_on(config, data, place.left)
    description = describe(data)
    if resume is not None:
        config = {**config, "lr_schedule": dict(resume.lr_schedule)}
    if guide := config["guidance"].get("ckpt"):
        config = {**config, "guidance": {**config["guidance"], "ckpt": str(absolute(guide))}}
    module = build_module(config, description)
    module.guidance = with_guide(module.guidance, module, config["allow_targets"])
    if module.is_conditioned:
        module.conditions = HeldOut(data)
        try:
            module.conditions([0])
        except ValueError as error:
            raise UsageError(str(error)) from error
    _check_finite(module)
    if resume is None:
        _check_length(module, config["trainer"]["max_steps"])
    computing = _choose_computing(config, module)
    if config["init"] and resume is None:
        continuing.start_from(module, config["init"])
    config = micro_batch.accumulating(config, place, module, data, _begun_with(resume, place))
    module.config = dict(config)

    loggers = build_loggers(
        config,
        place,
        description,
        logged_before(resume, place.left)[0],
        continuing.chosen(place, resume),
    )
    if config["trainer"]["fast_dev_run"]:
        loggers.insert(0, DummyLogger())  # as Lightning does, so that what callbacks ask of theirs is there
    callbacks = build_callbacks(config, module, place.directory)
    _check_monitors(callbacks, measured=limit_val_batches != 0)
    _check_quality(callbacks, config["callbacks"], module, data)
    callbacks.append(SameRun(partial(identity, config, description["fingerprint"])))
    trainer = build_trainer(
        config,
        place.directory,
        callbacks,
        loggers,
        computing,
        limit_val_batches,
        watch.callback,
        place.lock,
    )
    check_processes(trainer, place.directory)
    _check_shared(trainer, data)
    _check_graphs(trainer, computing)
    if trainer.strategy.root_device.type == "cpu" and not isinstance(trainer.strategy, FullySharded):
        keep_freed_memory()
    if config["preflight"]:
        watch.close()
        return lambda: (
            preflight(trainer, module, data, computing, resume.step if resume else 0) if is_leader() else 0
        )

    def work() -> int:
        try:
            return _fit(trainer, module, data, place, loggers, resume, computing, watch)
        finally:
            watch.close()

    return work


def _begun_with(resume: Resume | None, place: Place) -> int | None:
    """The micro-batches of a step of the run that goes on; None for one that begins."""
    if resume is not None:
        return resume.accumulation
    return None if place.left is None else place.left.config["trainer"].get("accumulate_grad_batches")


def _validation(config: dict[str, Any], data: ImageDataModule) -> int | None:
    """How many batches a validation has; None for all that there are."""
    limit = config["trainer"]["overfit_batches"] or config["trainer"]["limit_val_batches"]
    if not len(data.data_set.validation):
        return 0
    return None if limit is None else data.measured_batches(limit)


def _check_length(module: DDPM, max_steps: int) -> None:
    """Refuse a schedule of torch's that allows fewer steps than the run has (OneCycleLR), which it would say
    when they are over.
    """
    if module.lr_schedule is None:
        return
    schedule = module.lr_schedule(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]))
    total = getattr(schedule, "total_steps", None)
    if isinstance(total, int) and not 0 < max_steps <= total:
        raise UsageError(
            f"lr_schedule: {type(schedule).__name__} ends after {total} steps, and "
            f"trainer.max_steps={max_steps}; give both the same number"
        )


def _check_finite(module: DDPM) -> None:
    """Refuse a network that no checkpoint could be written of, before it has trained for hours."""
    if (name := first_not_finite({"state_dict": module.state_dict()})) is not None:
        raise UsageError(
            f"model: {name.removeprefix('state_dict.')} holds NaN or infinity before any training; a buffer "
            "that holds infinity on purpose must be one of persistent=False"
        )


def _check_monitors(callbacks: list[Callback], *, measured: bool) -> None:
    """Refuse callbacks that wait for the validation where there is none."""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if not measured and str(monitor).startswith("val/"):
            raise UsageError(
                f"callbacks: {type(callback).__name__} watches {monitor}, and nothing is validated here; "
                "raise trainer.limit_val_batches, hold images out, or leave it out"
            )
        if str(monitor).startswith("samples/") and not any(
            isinstance(other, SampleQuality) and other.measures(str(monitor)) for other in callbacks
        ):
            raise UsageError(
                f"callbacks: {type(callback).__name__} watches {monitor}, which nothing measures; add "
                "callbacks=[...,quality], whose metrics it is named by"
            )


def _check_quality(
    callbacks: list[Callback], nodes: dict[str, Any], module: DDPM, data: ImageDataModule
) -> None:
    """Refuse samples that cannot be measured: weights that are missing, data without labels."""
    names = [name for name, node in nodes.items() if node]
    for name, callback in zip(names, callbacks, strict=True):
        if isinstance(callback, SampleQuality):
            try:
                callback.check(module, data)
            except UsageError as error:
                raise UsageError(f"callbacks.{name}: {error}") from error


def _check_shared(trainer: Trainer, data: ImageDataModule) -> None:
    """Refuse a global batch that the devices cannot share."""
    try:
        data.check_shared(world_size=trainer.world_size, accumulation=trainer.accumulate_grad_batches)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _check_graphs(trainer: Trainer, computing: Computing) -> None:
    """Refuse CUDA graphs where there are none, and where the gradients of one pass outlive it: the next one
    would write where they are.
    """
    if not computing.cuda_graphs:
        return
    device = trainer.strategy.root_device.type
    if device != "cuda":
        raise UsageError(f"model.cuda_graphs=true: is for NVIDIA GPUs, and this is {device}; use false")
    if not computing.compile:
        raise UsageError("model.cuda_graphs=true: starts what is compiled; leave out model.compile=false")
    if trainer.world_size > 1:
        raise UsageError(
            f"model.cuda_graphs=true: is for one device, and there are {trainer.world_size}; use false"
        )
    if trainer.accumulate_grad_batches > 1:
        raise UsageError(
            "model.cuda_graphs=true: takes a batch whole, and this run adds up the gradients of "
            f"{trainer.accumulate_grad_batches} parts; use false, or leave out "
            "trainer.accumulate_grad_batches and data.micro_batch"
        )


def _choose_computing(config: dict[str, Any], module: DDPM) -> Computing:
    """How the network shall be computed; it is laid out here, as no optimizer refers to its weights yet."""
    switches = {name: config["model"].get(name) for name in SWITCHES["model"]}
    switches["cuda_graphs"] = bool(switches["cuda_graphs"])  # runs of before have no such key
    if config["strategy"].get("_target_") == SHARDED:  # which has neither, and the check refused both
        switches |= {"channels_last": False, "compile": False, "cuda_graphs": False}
    try:
        computing = choose(
            device_of(config["trainer"]["accelerator"]),
            module.num_parameters,
            config["trainer"]["max_steps"],
            precision=config["trainer"]["precision"],
            **switches,
        )
    except UsageError as error:  # about the precision
        raise UsageError(f"trainer.{error}") from error
    module.compute_as(computing)
    return computing


def _begin_loggers(loggers: list[Logger], nodes: dict[str, Any]) -> None:
    """Begin what the loggers write to, and find what only that can tell: a name or a place that is refused.

    Raises:
        UsageError: for the first.
    """
    names = [name for name, node in nodes.items() if node]
    for name, logger in zip(names, loggers, strict=False):  # metrics.csv, the last, is nobody's
        targets.called(f"logger.{name}", _begun, logger)


def _begun(logger: Logger) -> None:
    try:
        getattr(logger, "experiment", None)
    except OSError as error:
        if error.errno not in FULL:
            raise
        log.warning("%s: cannot begin (%s); it is tried again later", type(logger).__name__, error)


def _fit(
    trainer: Trainer,
    module: DDPM,
    data: ImageDataModule,
    place: Place,
    loggers: list[Logger],
    resume: Resume | None,
    computing: Computing,
    watch: Watch,
) -> int:
    """Train, and keep the record of it. Returns the exit code."""
    assert module.config is not None
    terminal.set_up(
        place.directory / "train.log",
        leader=trainer.is_global_zero,
        rank=trainer.global_rank,
        verbose=module.config["verbose"],
    )
    warnings.filterwarnings("ignore", module="lightning")
    record: RunRecord | None = None
    raised: BaseException | None = None
    if trainer.is_global_zero:
        try:
            record = _begin(trainer, module, data, place, loggers, resume, computing)
        except Exception:
            refusal.tell_ranks()
            raise
        watch.record = partial(_record_break, record, trainer)
    try:
        watch.meet(trainer)
        meet_anew(trainer)
        _train(trainer, module, data, resume, record)
    except Exception as error:
        raised = watch.cause(error)
        if not isinstance(raised, Interrupted | Pruned | TrainingError):
            log.exception("training failed at step %d", trainer.global_step)
    except BaseException as error:  # a callback that leaves the program: the run has come to no end
        raised = error
        raise
    finally:
        watch.is_over()
        ended = watch.named(ending(trainer, raised))
        if record is not None:
            data.write_skipped(place.directory)  # a stream finds more as it goes
            _record_end(record, trainer, ended)
            if names := _names_of_values(trainer):
                record.add(measured=names)
            if requeued := watch.queued_again(ended):
                record.add(requeued=requeued)
            for path in write_again():
                log.warning("%s is lost", path)
        for logger in loggers:
            if isinstance(logger, WandbLogger):
                logger.finish(ended.exit_code)
        watch.close(ended)
    if record is not None:
        record.end_offline(loggers)
        schedule, allowed = module.config["lr_schedule"], module.config["allow_targets"]
        terminal.say(screens.last_screen(place, record.values, trainer.max_steps, schedule, allowed))
    elif ended.status == "interrupted" or isinstance(raised, NonFiniteError):
        return 0  # what started the ranks would take another code of one for a reason to end the leader
    return ended.exit_code


def _begin(
    trainer: Trainer,
    module: DDPM,
    data: ImageDataModule,
    place: Place,
    loggers: list[Logger],
    resume: Resume | None,
    computing: Computing,
) -> RunRecord:
    """What the leader writes and says before the first step."""
    directory, csv = place.directory, loggers[-1]
    assert module.config is not None
    _begin_loggers(loggers, module.config["logger"])
    assert isinstance(csv, MetricsCSV)
    if place.left is not None:
        resume.take_over_history(csv) if resume else continuing.begin_anew(csv)
    record = RunRecord(
        directory,
        known(trainer, module, place, resume, computing, loggers),
        step=resume.step if resume else 0,
        left=place.left.record if place.left else None,
        lock=place.lock,
    )
    write_config(directory, module.config)
    if place.left is None and resume is not None:  # from now on the directory is seen to be a run's
        resume.take_over_history(csv)
    data.write_skipped(directory)
    if resume is not None:
        resume.log_what_was_lost(csv, loggers)
    card = screens.card(trainer, module, data, computing)
    screens.announce(card, trainer, module, place, resume)
    configuration = dashboard.shown(module.config, module.data, continuing.chosen(place, resume))
    facts = dashboard.facts(trainer, module)
    for logger in loggers:
        may_fail(logger)
        logger.log_hyperparams(configuration)
        log_columns(logger, configuration, ("train/loss", "val/loss"))
        log_summary(logger, facts)
        if resume is None or not isinstance(logger, WandbLogger):  # W&B's run goes on, others begin anew
            log_card(logger, card)
    if resume is None and (sheet := contact_sheet(data.data_set)) is not None:
        for logger in loggers:
            log_picture(logger, "data/contact_sheet", sheet, step=0)
    return record


def _train(
    trainer: Trainer, module: DDPM, data: ImageDataModule, resume: Resume | None, record: RunRecord | None
) -> None:
    """Train to an end, going back to a checkpoint where the configuration says so."""

    def go_back(path: Path, step: int, asked: Rollback) -> None:
        if record is None:
            return
        back = Resume(path, step, wandb_id=None, lr_schedule={})
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                back.take_over_history(logger)
        record.add_rollback(step=asked.step, to_step=step, why=str(asked))

    fit(
        trainer,
        module,
        ckpt_path=resume.path if resume else None,
        on_rollback=go_back,
        datamodule=data,
    )


def _record_break(record: RunRecord, trainer: Trainer, ended: Ending) -> None:
    """What run.json says of a run that is broken off from another thread, while the main one may wait for a
    device: nothing is asked of that. A run whose end is recorded has ended so.
    """
    if record.values["status"] == "running":
        _write_end(record, trainer, ended)


def _record_end(record: RunRecord, trainer: Trainer, ended: Ending) -> None:
    """What run.json says in the end."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    _write_end(record, trainer, ended, metrics=metrics, objective=metrics.get("val/loss"))


def _names_of_values(trainer: Any) -> dict[str, str]:
    """What values of samples depend on, by the short names that they were logged by."""
    measuring = [callback for callback in trainer.callbacks if isinstance(callback, SampleQuality)]
    return {short: full for callback in measuring for short, full in callback.names.items()}


def _write_end(record: RunRecord, trainer: Trainer, ended: Ending, **measured: Any) -> None:
    directory = record.path.parent
    record.end(
        ended.status,
        exit_code=ended.exit_code,
        why=ended.why,
        step=trainer.global_step,
        wandb_offline=logged_to(directory, logged_offline(directory, record.values), trainer.loggers),
        **measured,
    )
