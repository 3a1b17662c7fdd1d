"""The best value so far of what counts, beside the last one, where dashboards list runs."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.callbacks.every_n_steps import EveryNSteps
from ddpm.training.loggers import log_summary

ALWAYS = {"val/loss": "min"}
"""What counts in every run."""


class Bests(Callback):
    """Keeps `best/NAME` and `best/NAME_step` in the summary of the run: of the validation loss, and of what a
    callback watches (`monitor`), the lowest, or the highest where its `mode` is "max".

    Values are looked at after each validation, after each step for which a callback has come that measures
    now and then, and at the end; those that are not finite are left out. They are in the checkpoints, so
    that a run that goes on knows those before.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, int]] = {}
        self._latest: dict[str, float] = {}  # what was looked at last

    def state_dict(self) -> dict[str, Any]:
        return {name: list(best) for name, best in self.found.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found = {name: (value, step) for name, (value, step) in state_dict.items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _tell(trainer, self.found)  # loggers that begin anew know nothing of it

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        often = (one.every_n_steps for one in trainer.callbacks if isinstance(one, EveryNSteps))
        if any(n > 1 and trainer.global_step % n == 0 for n in often):
            self._look(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Any) -> None:
        better = {}
        for name, mode in (ALWAYS | _watched(trainer)).items():
            if name not in trainer.callback_metrics:
                continue
            value, step = float(trainer.callback_metrics[name]), int(trainer.global_step)
            if not math.isfinite(value) or self._latest.get(name) == value:  # measured before
                continue
            self._latest[name] = value
            best = self.found.get(name)
            if best is None or (value > best[0] if mode == "max" else value < best[0]):
                self.found[name] = better[name] = value, step
        _tell(trainer, better)


def _tell(trainer: Trainer, found: Mapping[str, tuple[float, int]]) -> None:
    facts: dict[str, float | int | str] = {}
    for name, (value, step) in found.items():
        facts |= {f"best/{name}": value, f"best/{name}_step": step}
    for logger in trainer.loggers if facts else ():
        log_summary(logger, facts)


def _watched(trainer: Any) -> dict[str, str]:
    """What callbacks watch, and whether the lowest or the highest value of it is best."""
    watching = (
        callback for callback in trainer.callbacks if isinstance(getattr(callback, "monitor", None), str)
    )
    return {callback.monitor: str(getattr(callback, "mode", "min")) for callback in watching}
