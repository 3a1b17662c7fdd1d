"""The best value so far of what counts, beside the last one, where dashboards list runs."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ddpm.training.loggers import log_summary

ALWAYS = {"val/loss": "min"}
"""What counts in every run."""


class Bests(Callback):
    """Keeps `best/NAME` and `best/NAME_step` in the summary of the run: of the validation loss, and of what a
    callback watches (`monitor`), the lowest, or the highest where its `mode` is "max".

    Values are looked at after each validation and at the end. They are in the checkpoints, so that a run that
    goes on knows those before.
    """

    def __init__(self) -> None:
        self.found: dict[str, tuple[float, int]] = {}

    def state_dict(self) -> dict[str, Any]:
        return {name: list(best) for name, best in self.found.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.found = {name: (value, step) for name, (value, step) in state_dict.items()}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def _look(self, trainer: Any) -> None:
        better: dict[str, float | int | str] = {}
        for name, mode in (ALWAYS | _watched(trainer)).items():
            if name not in trainer.callback_metrics:
                continue
            value, step = float(trainer.callback_metrics[name]), int(trainer.global_step)
            best = self.found.get(name)
            if best is None or (value > best[0] if mode == "max" else value < best[0]):
                self.found[name] = value, step
                better |= {f"best/{name}": value, f"best/{name}_step": step}
        if better:
            for logger in trainer.loggers:
                log_summary(logger, better)


def _watched(trainer: Any) -> dict[str, str]:
    """What callbacks watch, and whether the lowest or the highest value of it is best."""
    watching = (
        callback for callback in trainer.callbacks if isinstance(getattr(callback, "monitor", None), str)
    )
    return {callback.monitor: str(getattr(callback, "mode", "min")) for callback in watching}
