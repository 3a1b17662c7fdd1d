"""Weights & Biases by Lightning's logger, which needs no account, no network and no care."""

import logging
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger as LightningsWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from ddpm.runtime.writing import reason
from ddpm.training.loggers import wandb_service

log = logging.getLogger(__name__)

Mode = Literal["offline", "online", "disabled"]

MODES: dict[str, Mode] = {
    "offline": "offline",
    "online": "online",
    "disabled": "disabled",
    "dryrun": "offline",
    "run": "online",
}
"""W&B's words for a mode, old ones too, and what each means."""

STEP = "trainer/global_step"
"""The axis of every chart, as Lightning's logger has it: completed optimizer steps."""

FULL = 2**17
"""Free bytes below which a disk takes no more: W&B writes blocks of 32 KiB."""

MOST_BEGINNINGS = 8
"""Directories that one process begins for its run, one after the other, where W&B fails."""

TO_BEGIN = 120.0
"""Seconds, beyond the server's, that W&B has to begin: to start its process, and to look at the program."""

TO_FINISH = 30.0
"""Seconds, beyond the server's, that W&B has to end: to write what it has, and to leave."""


class WandbLogger(LightningsWandbLogger):
    """One Weights & Biases run; what Lightning's logger does, this one does.

    It is offline unless told otherwise, and goes offline, saying so, where the server cannot be reached.
    The process's environment stays as it is, W&B is imported when the run begins, and nothing that is logged
    is dropped: where W&B would refuse a step that is behind its own counter, the value gets a row of its own
    whose `trainer/global_step` is right.

    What W&B cannot take, as its disk is full or its own process has died, is told with every row, waits in
    memory, and goes on in another directory of the same run as soon as that is possible; `wandb sync` makes
    one run of them. What a server has not taken by the end of the run stays on disk for `wandb sync`. Nor is
    W&B's own process waited for without limit: one that does not answer is killed.

    Where an argument is None, W&B's environment variable holds: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY,
    WANDB_NAME, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_NOTES, WANDB_DIR, WANDB_RUN_ID ...

    Args:
        mode: "offline" (no account, no network; `wandb sync` uploads later), "online" or "disabled"; without
            a word from anyone offline, but online where an agent of W&B's started the program.
        project: of the dashboard; without a word from anyone "ddpm".
        entity: team or user that the run belongs to.
        name: of the run.
        group: runs that belong together, such as the jobs of a sweep.
        job_type: what kind of run it is.
        tags: of the run.
        notes: about the run.
        id: of the run; an id that there is already continues that run.
        save_dir: the run's files land in its `wandb/`.
        config: plain containers, shown beside the run.
        save_code: upload the program's main file.
        log_model: keep checkpoints as versions of the artifact `model-RUN_ID`: False; True, the last one at
            the end; "all", each as it is written. So it is with those of Lightning's ModelCheckpoint.
            Offline a copy of each waits in W&B's own directory (WANDB_DATA_DIR) for `wandb sync`.
        prefix: of every metric's name.
        init_timeout: seconds that the server has to answer before the run goes offline.
        finish_timeout: seconds that the server has at the end of the run; what it has not taken by then stays
            on disk. 0 waits for ever, and says so once a minute.
        settings: further ones by name, as `wandb.Settings` takes them.

    Raises:
        ValueError: for a mode that there is not.
        ModuleNotFoundError: where W&B is not installed.
    """

    def __init__(
        self,
        mode: str | None = None,
        project: str | None = None,
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        id: str | None = None,
        save_dir: str | Path | None = None,
        config: Mapping[str, Any] | None = None,
        save_code: bool | None = None,
        log_model: Literal["all"] | bool = False,
        prefix: str = "",
        init_timeout: float = 30.0,
        finish_timeout: float = 15.0,
        settings: Mapping[str, Any] | None = None,
    ):
        source = "logger.wandb.mode" if mode is not None else "WANDB_MODE"
        by_agent = "WANDB_SWEEP_ID" in os.environ
        mode = mode or os.environ.get("WANDB_MODE") or ("online" if by_agent else "offline")
        if mode not in MODES:
            raise ValueError(f"{source}={mode} must be offline, online or disabled")
        self.mode = MODES[mode]
        super().__init__(
            project=project or os.environ.get("WANDB_PROJECT") or "ddpm",
            name=name,
            id=id,
            save_dir=save_dir or os.environ.get("WANDB_DIR") or ".",
            log_model=log_model,
            prefix=prefix,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=list(tags) if tags else None,
            notes=notes,
            config=None if config is None else dict(config),
            save_code=save_code,
        )
        self._settings = {
            "console": "off",
            "quiet": True,
            "silent": True,
            "init_timeout": init_timeout,
            "finish_timeout": finish_timeout,
            "finish_timeout_raises": True,
            **(settings or {}),
        }
        self.completed_steps: Callable[[], int | None] = lambda: None
        """Where training stands, for what others log without a step; see `at_completed_steps`."""
        self._waiting: list[tuple[dict[str, Any], int | None]] = []
        """Rows that W&B could not take."""
        self.first_step: int | None = None
        """Of the rows that were logged at a step, the first."""
        self._last_checkpoint: tuple[Path, int] | None = None
        """To be kept at the end."""
        self._offline_dirs: list[Path] = []
        self._beginnings = 0

    @property
    def run_id(self) -> str | None:
        """The run's id, known once it has begun; also after it has ended."""
        return self._id

    @property
    def sync_dirs(self) -> list[Path]:
        """What `wandb sync` is given to upload what was logged offline; more than one where it went on in
        another directory, none before the run has begun.
        """
        return self._offline_dirs

    _sync_dir: Path | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; begun on first use, on rank 0 only."""
        if self._experiment is None:
            self._experiment = self._begin()
        return self._experiment

    def _begin(self) -> Any:
        import wandb
        from pydantic import ValidationError  # what W&B checks its settings by

        if self._beginnings >= MOST_BEGINNINGS:
            raise OSError(f"it has failed {MOST_BEGINNINGS} times; logger=none trains without it")
        self._beginnings += 1
        Path(self._wandb_init["dir"]).mkdir(parents=True, exist_ok=True)
        begin = {name: value for name, value in self._wandb_init.items() if value is not None}
        begin["reinit"] = "finish_previous"
        try:
            begin["settings"] = wandb.Settings(**self._settings)
            with _without_tracebacks():
                run = self._init(begin)
        except ValidationError as error:  # of several lines
            refused = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, refused['loc']))}: {refused['msg']}") from error
        except (wandb.errors.CommError, wandb.errors.UsageError, wandb_service.SilentError) as error:
            if isinstance(error, wandb_service.SilentError):
                wandb_service.forget()
            if self.mode != "online":
                if isinstance(error, wandb_service.SilentError):
                    self._beginnings = MOST_BEGINNINGS  # training has waited for it long enough
                raise
            first_line = str(error).splitlines()[0]
            log.warning("W&B cannot be reached (%s): this run is logged offline instead", first_line)
            self.mode = "offline"
            run = self._init(begin)
        wandb_service.limit_the_exit(self._to_finish)
        self._id = self._wandb_init["id"] = run.id
        self._sync_dir = Path(run.settings.sync_dir)
        if self.mode == "offline":
            self._offline_dirs.append(self._sync_dir)
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        self._place_what_others_log(run)
        return run

    def _init(self, begin: dict[str, Any]) -> Any:
        import wandb

        if self.mode == "online" and sys.stdin is not None and sys.stdin.isatty():
            return wandb.init(mode=self.mode, **begin)  # may ask who sits there for a key, and waits for them
        limit = float(self._settings["init_timeout"]) + TO_BEGIN
        try:
            return wandb_service.within(limit, lambda: wandb.init(mode=self.mode, **begin))
        except Exception as error:
            if not wandb_service.is_of_another(error):
                raise
        wandb_service.forget()
        return wandb_service.within(limit, lambda: wandb.init(mode=self.mode, **begin))

    @property
    def _to_finish(self) -> float:
        return float(self._settings["finish_timeout"] or math.inf) + TO_FINISH

    def _place_what_others_log(self, run: Any) -> None:
        """Put what is given to `experiment.log` or `wandb.log` without a step where training stands."""
        import wandb

        log_row = run.log

        def log_placed(data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
            if STEP not in data and (completed := self.completed_steps()) is not None:
                data = {**data, STEP: completed}
            log_row(data, step=step, commit=commit)

        run.log = log_placed
        wandb.log = log_placed

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log values at a number of completed optimizer steps, a row a step as far as W&B admits it."""
        self.first_step = step if self.first_step is None else self.first_step
        prefix = f"{self._prefix}{self.LOGGER_JOIN_CHAR}" if self._prefix else ""
        row = {f"{prefix}{name}": value for name, value in metrics.items()}
        self._log([*self._waiting, (row, step)])

    def _log(self, rows: list[tuple[dict[str, Any], int | None]]) -> None:
        """Hand rows to W&B; those that it cannot take wait."""
        self._waiting = rows
        try:
            if self._experiment is not None and self._is_full():
                self._is_spoilt = True  # W&B's file takes nothing more after a write that failed
                raise OSError(f"{self._sync_dir} is full")
            if self._is_spoilt:
                self._begin_anew()
            while self._waiting:
                _log_row(self.experiment, *self._waiting[0])
                del self._waiting[0]
        except Exception as error:
            if not _may_pass(error):
                del self._waiting[0]
                raise
            if self._experiment is None:
                wandb_service.forget()
            else:
                self._is_spoilt = True
            log.warning("W&B: %s; %d rows wait in memory", _in_words(error), len(self._waiting))

    _is_spoilt = False

    def _is_full(self) -> bool:
        try:
            return self._sync_dir is not None and shutil.disk_usage(self._sync_dir).free < FULL
        except OSError:
            return True

    def _begin_anew(self) -> None:
        """Go on with the run in another directory."""
        self._end(0)
        log.warning("W&B: the run goes on in another directory of %s/wandb", self._wandb_init["dir"])
        self._is_spoilt = False

    @rank_zero_only
    def log_checkpoint(self, path: Path, step: int) -> None:
        """Keep a checkpoint that is written, one whole file, as `log_model` says.

        Args:
            path: of the file, which may go as soon as this returns.
            step: completed optimizer steps.
        """
        if self._log_model == "all":
            self._keep(path, step)
        elif self._log_model:
            self._last_checkpoint = path, step

    def _keep(self, path: Path, step: int) -> None:
        import wandb

        artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata={"step": step})
        artifact.add_file(str(path), name="model.ckpt")  # as Lightning's logger calls it
        self.experiment.log_artifact(artifact, aliases=["latest", f"step_{step}"])

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Hand over what waits, while the record of the run can still say where."""
        if self._waiting:
            self._log(self._waiting)
        if self._last_checkpoint is not None:
            (path, step), self._last_checkpoint = self._last_checkpoint, None
            self._keep(path, step)
        super().finalize(status)

    @rank_zero_only
    def finish(self, exit_code: int = 0) -> None:
        """End the run, if it has begun, with the exit code of the process."""
        if self._waiting:
            log.warning("W&B: %d rows are lost there; metrics.csv has them", len(self._waiting))
        if self._experiment is not None:
            self._end(exit_code)

    def _end(self, exit_code: int) -> None:
        run: Any = self._experiment
        try:
            wandb_service.within(
                self._to_finish,
                lambda: run.finish(exit_code=exit_code),
                on_waiting=self._say_waiting,
            )
        except Exception as error:
            log.warning(
                "W&B: %s; what it has not sent stays on disk, and is sent by: wandb sync %s",
                _in_words(error), self._sync_dir,
            )  # fmt: skip
            if not isinstance(error, TimeoutError) or isinstance(error, wandb_service.SilentError):
                wandb_service.forget()
        self._experiment = None

    def _say_waiting(self, seconds: float) -> None:
        if math.isinf(self._to_finish):
            log.info("W&B: sending, for %.0f s so far; finish_timeout=0 waits for ever", seconds)


def _log_row(run: Any, row: dict[str, Any], step: int | None) -> None:
    if step is None:
        run.log(row)
        return
    row[STEP] = step
    own = run.step  # is ahead where others log without a step, or where a run goes on from further back
    run.log(row, step=step) if own <= step else run.log(row, step=own + 1, commit=True)


def _in_words(error: Exception) -> str:
    """What an error of W&B's says; that its process is gone it says by the kind of the error alone. It is the
    only one that is spoken to here: a server is its own affair.
    """
    is_gone = _is_of_mailbox(error) or isinstance(error, ConnectionError)
    return "its process has died" if is_gone else reason(error).rstrip(".")


def _may_pass(error: Exception) -> bool:
    """Whether it is about W&B's surroundings, and not about what was logged."""
    return isinstance(error, OSError) or _is_of_mailbox(error)


def _is_of_mailbox(error: Exception) -> bool:
    """Whether W&B's process does not answer: its mailbox is closed, or what was asked of it is given up."""
    return type(error).__module__.startswith("wandb.sdk.mailbox")


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Let W&B's own log files be refused by the disk without a traceback a line."""
    raises, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = raises
        for handler in logging.getLogger("wandb").handlers:
            handler.handleError = _nothing  # type: ignore[method-assign]  # of this one alone


def _nothing(record: logging.LogRecord) -> None:
    """What is done about a line that cannot be written."""
