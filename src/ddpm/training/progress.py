"""How far a run is and how long it will still take: a bar on a terminal, a line now and then elsewhere."""

import logging
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

log = logging.getLogger(__name__)

console = Console(stderr=True)
"""Where everything that is no result is said; one for all, so that lines and bars do not disturb each
other.
"""

SECONDS_BETWEEN_LINES = 15.0


def duration(seconds: float) -> str:
    """42 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600} h"


class Countdown:
    """Shows done/total, a text and the time left, on whatever the output is. Use as a context manager.

    Args:
        title: what is going on.
        total: steps.
        done: steps that were done before.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self.title = title
        self.total = total
        self.first = self.done = done
        self.text = ""
        self._bar: Progress | None = None

    def __enter__(self) -> "Countdown":
        self._start = self._last_line = time.monotonic()
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, console=console, transient=True, refresh_per_second=4)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.done, text="")
            self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def left(self) -> str:
        """The time left, from the speed so far."""
        now_done = self.done - self.first
        if now_done == 0:
            return ""
        return duration((time.monotonic() - self._start) / now_done * (self.total - self.done)) + " left"

    def advance(self, done: int, text: str | None = None) -> None:
        """`done` steps are done; `text` replaces what is said beside them."""
        self.done = done
        if text is not None:
            self.text = text
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=f"{self.text}  {self.left()}")
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES and done < self.total:
            self._last_line = time.monotonic()
            log.info("%s %d/%d  %s  %s", self.title, done, self.total, self.text, self.left())


class TrainingProgress(Callback):
    """Loss, speed and time left of the training."""

    def __init__(self) -> None:
        self._countdown: Countdown | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.is_global_zero:
            self._countdown = Countdown("training", trainer.max_steps, trainer.global_step).__enter__()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._countdown is None:
            return
        text = None
        if trainer.global_step % trainer.log_every_n_steps == 0:
            latest = trainer.callback_metrics
            text = "  ".join(
                f"{label} {float(latest[name]):.{digits}f}{unit}"
                for name, label, digits, unit in (
                    ("train/loss", "loss", 4, ""),
                    ("val/loss", "val", 4, ""),
                    ("perf/steps_per_second", "", 1, " steps/s"),
                )
                if name in latest
            )
        self._countdown.advance(trainer.global_step, text)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._countdown is not None:
            self._countdown.__exit__()
            self._countdown = None
