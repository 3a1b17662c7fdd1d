"""One step convention in every logger: a value stands at the number of completed optimizer steps."""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.trainer.states import TrainerFn

from ddpm.training.loggers.wandb import WandbLogger


def at_completed_steps(logger: Logger, trainer: Trainer) -> None:
    """Have a logger, of whatever kind, write what comes while fitting at `trainer.global_step`.

    Lightning numbers a step by the steps before it: what a callback gives to `module.log` after the first
    step, it would write at 0; what is logged for each batch of the validation it would write at the number
    of that batch. A run that is counted in steps alone gets no `epoch` either, which means nothing where
    batches cross epochs.

    It is done on the instance, since the loggers are anybody's. A step that a person gives stays, and so does
    everything outside of fitting. Doing it twice is doing it once.
    """
    log_metrics: Callable[..., None] = logger.log_metrics
    if hasattr(log_metrics, "at_completed_steps"):
        return

    @wraps(log_metrics)
    def at_completed_step(metrics: Mapping[str, Any], step: int | None = None) -> None:
        if trainer.state.fn == TrainerFn.FITTING and step in _lightnings(trainer):
            step = trainer.global_step
            if trainer.max_epochs == -1 and metrics.get("epoch") == trainer.current_epoch:
                metrics = {name: value for name, value in metrics.items() if name != "epoch"}
        if metrics:
            log_metrics(metrics, step=step)

    at_completed_step.at_completed_steps = True  # type: ignore[attr-defined]  # of a function
    logger.log_metrics = at_completed_step  # type: ignore[method-assign]  # of this one alone
    if isinstance(logger, WandbLogger):
        logger.completed_steps = _counter(trainer)


def _lightnings(trainer: Trainer) -> set[int | None]:
    """The steps that Lightning and its callbacks log at just now, without having been told one."""
    steps: set[int | None] = {None, trainer.fit_loop.epoch_loop._batches_that_stepped}
    if trainer.validating or trainer.sanity_checking:
        validation = trainer.fit_loop.epoch_loop.val_loop
        steps |= {validation.batch_progress.total.ready, *validation._seen_batches_per_dataloader.values()}
    return steps


def _counter(trainer: Trainer) -> Callable[[], int | None]:
    return lambda: trainer.global_step if trainer.state.fn == TrainerFn.FITTING else None
