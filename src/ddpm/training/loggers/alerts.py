"""Alerts about what somebody should look at while a run goes on."""

import time
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from ddpm.training.loggers.failures import forgiven

AT_MOST_EVERY = 3600.0
"""Seconds from one alert of a kind to the next of it; what is in between is in the log of the run."""

_raised: WeakKeyDictionary[Logger, dict[str, float]] = WeakKeyDictionary()
"""When each logger was given one of a kind, by this process's clock."""


def raise_alert(trainer: Trainer, kind: str, text: str) -> None:
    """Give an alert to every logger that has a place for it, at most once an hour for each kind: W&B sends a
    mail or a message to who asked for it, offline it does nothing; TensorBoard shows a text under `alerts`,
    MLflow a tag.

    Where a logger fails that is told, and training goes on. To be called by the leader.

    Args:
        trainer: of the run.
        kind: what it is about, in fewer than 64 characters; the title.
        text: what has happened.
    """
    now = time.monotonic()
    for logger in trainer.loggers:
        of_logger = _raised.setdefault(logger, {})
        if now - of_logger.get(kind, -AT_MOST_EVERY) >= AT_MOST_EVERY:
            of_logger[kind] = now
            with forgiven(logger, "alert"):
                _give(logger, kind, text, trainer.global_step)


def _give(logger: Logger, kind: str, text: str, step: int) -> None:
    experiment: Any = getattr(logger, "experiment", None)
    if isinstance(logger, WandbLogger):
        experiment.alert(title=kind, text=text, level="WARN", wait_duration=AT_MOST_EVERY)
    elif isinstance(logger, TensorBoardLogger):
        experiment.add_text(f"alerts/{kind}", text, step)
    elif isinstance(logger, MLFlowLogger):
        experiment.set_tag(logger.run_id, f"alert {kind}", f"step {step}: {text}")
