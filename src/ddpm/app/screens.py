"""What a training run says at its start and at its end."""

import logging
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger

from ddpm.app import invocation
from ddpm.app.continuing import Resume
from ddpm.app.inspect import understood
from ddpm.app.run_directory import Place
from ddpm.data.module import ImageDataModule
from ddpm.runtime.computing import Computing
from ddpm.runtime.progress import duration
from ddpm.training import checkpoints
from ddpm.training.loggers import WandbLogger
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)


def announce(
    trainer: Trainer,
    module: DDPM,
    data: ImageDataModule,
    place: Place,
    computing: Computing,
    resume: Resume | None = None,
) -> None:
    """The lines at the start: where, on what, which network, how long, and what it goes on from."""
    on = trainer.strategy.root_device.type.upper()
    log.info("run directory  %s", readable(place.directory, place.cwd))
    for title, text in understood(data).items():
        log.info("%-15s%s", title, text)
    log.info("network        %s parameters, computed in %s", f"{module.num_parameters:,}", computing)
    log.info(
        "training       %s steps of %d images on %d %s%s",
        f"{trainer.max_steps:,}" if trainer.max_steps >= 0 else "endless",
        data.batch_size, trainer.world_size, on, "s" * (trainer.world_size > 1),
    )  # fmt: skip
    if resume is not None:
        rest = f", {trainer.max_steps - resume.step:,} to go" if trainer.max_steps >= 0 else ""
        log.info(
            "continues      %s from step %s%s", readable(resume.path, place.cwd), f"{resume.step:,}", rest
        )
    elif module.config is not None and module.config.get("init"):
        log.info("weights        the averaged ones of %s", module.config["init"])


def last_screen(
    place: Place,
    record: dict[str, Any],
    loggers: list[Logger],
    max_steps: int,
    lr_schedule: dict[str, Any],
    allow_targets: Sequence[str] = (),
) -> str:
    """How a run ended, where everything is, and the commands that go on from here, ready to be pasted.

    Args:
        place: of the run.
        record: what run.json says.
        loggers: of the run.
        max_steps: that it was to take.
        lr_schedule: configuration of its learning-rate schedule.
        allow_targets: packages of somebody's own, which each command has to admit again.
    """
    directory = place.directory
    shown = shlex.quote(readable(directory, place.cwd))
    metrics = "  ".join(
        f"{k} {v:.4f}" for k, v in record["metrics"].items() if k.endswith("/loss") and v is not None
    )
    after = duration(record["wall_seconds"])
    lines = [
        "",
        f"{record['status']} at step {record['step']} after {after}  {metrics}",
        f"  everything    {shown}",
    ]
    if record.get("why") and record["step"] != max_steps:
        lines.insert(2, f"  because       {record['why']}")
    if grids := sorted((directory / "samples").glob("step_*.png")):
        lines.append(f"  samples       {shlex.quote(readable(grids[-1], place.cwd))}")
    has_checkpoint = (directory / "checkpoints" / checkpoints.LAST).exists()
    if has_checkpoint:
        lines.append(f"  checkpoint    {shown}/checkpoints/{checkpoints.LAST}")
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger.sync_dir is not None:
            synced = shlex.quote(readable(logger.sync_dir, place.cwd))
            lines.append(f"  dashboard     wandb sync {synced}")
    if has_checkpoint:
        run = f"ckpt={shown}"
        if allow_targets:  # one needs no brackets, which a shell may take for a pattern
            packages = f"[{','.join(allow_targets)}]" if len(allow_targets) > 1 else allow_targets[0]
            run += f" {shlex.quote(f'allow_targets={packages}')}"
        lines.append(f"  sample it     {_command(place, 'sample')} {run}")
        lines.append(f"  measure it    {_command(place, 'evaluate')} {run}")
        go_on = f"{_command(place, 'train')} {run}"
        if 0 <= max_steps <= record["step"]:
            rate = " lr_schedule=constant" if lr_schedule.get("total_steps") is not None else ""
            lines.append(f"  train on      {go_on} trainer.max_steps={2 * max_steps}{rate}")
        else:
            lines.append(f"  continue it   {go_on}")
    return "\n".join(lines)


def _command(place: Place, name: str) -> str:
    """How another program of ours is started, as this one was, from where the person stands."""
    program = invocation.program()
    if program[-1] in invocation.COMMANDS and program[0] != "-m":
        return f"ddpm {name}"
    script = (place.cwd / sys.argv[0]).with_name(f"{name}.py")
    if program[0] != "-m" and script.is_file():
        return f"python {shlex.quote(readable(script, place.cwd))}"
    return f"python -m ddpm {name}"


def readable(path: Path, cwd: Path) -> str:
    """As short as it can be typed from where the person stands."""
    relative = os.path.relpath(path, cwd)
    if relative.startswith(".."):
        return str(path)
    return f"./{relative}" if relative.startswith("~") else relative  # else it would be somebody's home
