"""Callbacks of Lightning that watch what is measured now and then: `best` and `early_stopping`."""

from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint


def wait_for(trainer: Trainer, measures: Callable[[str], bool]) -> None:
    """Have those callbacks not look by themselves: they would after each validation, where the value is that
    of an earlier step, or there is none yet, which is an error to them.

    Args:
        trainer: of the callbacks.
        measures: whether a name is one of what is measured.
    """
    for callback in _watching(trainer, measures):
        asks = (
            "_should_skip_saving_checkpoint"
            if isinstance(callback, ModelCheckpoint)
            else "_should_skip_check"
        )
        setattr(callback, asks, _always)


def look(trainer: Trainer, measures: Callable[[str], bool]) -> None:
    """Have them look now, right after a measurement. All ranks must call it.

    Checkpoints come first: a run that goes on from one looks again, and what it looks with is as it was.
    """
    watching = _watching(trainer, measures)
    for checkpoint in watching:
        if isinstance(checkpoint, ModelCheckpoint) and not _would_skip(checkpoint, trainer):
            candidates = checkpoint._monitor_candidates(trainer)
            checkpoint._save_topk_checkpoint(trainer, candidates)
            if checkpoint._last_global_step_saved == trainer.global_step:
                checkpoint._save_last_checkpoint(trainer, candidates)
    for callback in watching:
        if isinstance(callback, EarlyStopping):
            callback._run_early_stopping_check(trainer)


def _watching(trainer: Any, measures: Callable[[str], bool]) -> list[Any]:
    return [
        callback
        for callback in trainer.callbacks
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and measures(str(callback.monitor))
    ]


def _would_skip(checkpoint: ModelCheckpoint, trainer: Trainer) -> bool:
    """What Lightning itself says, see `wait_for`."""
    return ModelCheckpoint._should_skip_saving_checkpoint(checkpoint, trainer)


def _always(*_: Any) -> bool:
    return True
