"""Where the scalars and pictures of a run go: always a CSV file, and Weights & Biases where it is chosen."""

import csv
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

log = logging.getLogger(__name__)


class MetricsCSV(Logger):
    """metrics.csv: a row for each step at which anything was logged, complete on disk at any time.

    Args:
        path: of the file; made when the first row is written.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.columns = ["step"]
        self._row: dict[str, Any] = {}
        self._row_start = 0
        self._begun = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration has a file of its own."""

    @rank_zero_only
    def continue_from(self, earlier: Path, step: int) -> None:
        """Begin with the rows of another run up to `step`, so that the file tells the whole history."""
        with earlier.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.columns = list(rows[0]) if rows else ["step"]
        self._rewrite(rows)
        self._begun = True

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if self._row.get("step") != step:
            self._row = {"step": step}
            self._row_start = self.path.stat().st_size if self._begun else 0
        self._row.update(metrics)
        new = [name for name in self._row if name not in self.columns]
        if new or not self._begun:
            self.columns += new
            self._rewrite([*self._earlier_rows(), self._row])
            return
        with self.path.open("r+", newline="") as file:
            file.seek(self._row_start)
            file.write(self._lines([self._row]))
            file.truncate()

    def _earlier_rows(self) -> list[dict[str, Any]]:
        if not self._begun:
            return []
        with self.path.open(newline="") as file:
            written = io.StringIO(file.read(self._row_start), newline="")
        return list(csv.DictReader(written))

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        head = ",".join(self.columns) + "\n" + self._lines(rows[:-1])
        temporary = self.path.with_name(self.path.name + ".part")
        with temporary.open("w", newline="") as file:
            file.write(head + self._lines(rows[-1:]))
        os.replace(temporary, self.path)
        self._row_start = len(head.encode())
        self._begun = True

    def _lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, lineterminator="\n").writerows(rows)
        return text.getvalue()


class WandbLogger(Logger):
    """One Weights & Biases run for one run directory.

    Args:
        directory: where the run's files go; they land in its `wandb/`.
        mode: "offline" (no account, no network; `wandb sync` uploads later), "online" or "disabled".
        project: of the dashboard.
        name: of the run.
        group: runs that belong together, such as the jobs of a sweep.
        id: of the run, to continue it.
        config: plain containers, shown beside the run.
        tags: of the run.
    """

    def __init__(
        self,
        directory: Path | str = ".",
        mode: str = "offline",
        project: str = "ddpm",
        name: str | None = None,
        group: str | None = None,
        id: str | None = None,
        config: dict[str, Any] | None = None,
        tags: list[str] | None = None,
    ):
        super().__init__()
        if mode not in ("offline", "online", "disabled"):
            raise ValueError(f"logger.mode={mode} must be offline, online or disabled")
        self.mode = mode
        self._settings = {
            "dir": str(directory),
            "project": project,
            "name": name,
            "group": group,
            "id": id,
            "config": config,
            "tags": tags,
        }
        self._run: Any = None

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str | None:
        return self.run_id

    @property
    def run_id(self) -> str | None:
        """The run's id, known once it has begun."""
        return self._settings["id"]

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; begun on first use, on rank 0 only."""
        if self._run is None:
            import wandb

            begin = {**self._settings, "resume": "allow", "reinit": "finish_previous"}
            begin["settings"] = wandb.Settings(console="off", quiet=True, silent=True)
            try:
                self._run = wandb.init(mode=self.mode, **begin)
            except (wandb.errors.CommError, wandb.errors.UsageError) as error:
                if self.mode != "online":
                    raise
                first_line = str(error).splitlines()[0]
                log.warning("W&B cannot be reached (%s): this run is logged offline instead", first_line)
                self.mode = "offline"
                self._run = wandb.init(mode=self.mode, **begin)
            self._settings["id"] = self._run.id
        return self._run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration is given at the start."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.experiment.log(metrics, step=step)

    @rank_zero_only
    def log_image(self, key: str, image: np.ndarray, step: int, caption: str | None = None) -> None:
        """Log a picture, uint8 [H, W, 3]: bytes arrive as they are, nothing is normalised."""
        import wandb

        self.experiment.log({key: wandb.Image(image, caption=caption)}, step=step)

    @rank_zero_only
    def finish(self, exit_code: int) -> None:
        """End the run, if it has begun, with the exit code of the process."""
        if self._run is not None:
            self._run.finish(exit_code=exit_code)
            self._run = None
