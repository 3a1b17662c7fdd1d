"""What a training run says at its start and at its end."""

import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from ddpm.app import next_commands
from ddpm.app.continuing import Resume
from ddpm.app.inspect import understood
from ddpm.app.left_run import is_complete, logged_offline
from ddpm.app.measuring.figures import HIGHER_IS_BETTER, OWN_NAME
from ddpm.app.next_commands import readable
from ddpm.app.run_directory import Place
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.report.curves import curves
from ddpm.runtime.computing import Computing
from ddpm.runtime.progress import duration
from ddpm.training import checkpoints
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)


def card(trainer: Trainer, module: DDPM, data: ImageDataModule, computing: Computing) -> dict[str, str]:
    """What a run is, a title and a line each: images, network, how long on what."""
    on = trainer.strategy.root_device.type.upper()
    rows = understood(data)
    rows["network"] = f"{module.num_parameters:,} parameters, computed in {computing}"
    steps = f"{trainer.max_steps:,}" if trainer.max_steps >= 0 else "endless"
    rows["training"] = (
        f"{steps} steps of {data.batch_size} images on {trainer.world_size} {on}"
        f"{'s' * (trainer.world_size > 1)}"
    )
    if (asked := ((module.config or {}).get("data") or {}).get("micro_batch")) is not None:
        each = data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
        rows["micro-batches"] = (
            f"{trainer.accumulate_grad_batches} a step, of {each} images on a device "
            f"(data.micro_batch={asked})"
        )
    return rows


def announce(
    rows: Mapping[str, str],
    trainer: Trainer,
    module: DDPM,
    place: Place,
    resume: Resume | None = None,
) -> None:
    """The lines at the start: where, what, what it goes on from, and what goes on with it.

    Args:
        rows: what the run is, see `card`.
        trainer, module, place: of the run.
        resume: what it goes on from.
    """
    allow_targets = (module.config or {}).get("allow_targets", ())
    log.info("run directory  %s", readable(place.directory, place.cwd))
    if place.lock is not None and place.lock.succeeded is not None:
        log.info("lock           taken over from %s, which is dead", place.lock.succeeded)
    for title, text in rows.items():
        log.info("%-15s%s", title, text)
    if resume is not None:
        rest = f", {trainer.max_steps - resume.step:,} to go" if trainer.max_steps >= 0 else ""
        log.info(
            "continues      %s from step %s%s", readable(resume.path, place.cwd), f"{resume.step:,}", rest
        )
    elif place.left is not None:
        log.info("continues      the run there, which has saved nothing yet, from step 0")
    elif module.config is not None and module.config.get("init"):
        log.info("weights        the averaged ones of %s", module.config["init"])
    again = "the same command again" if place.found_again else next_commands.go_on(place, allow_targets)
    log.info("to continue    %s", again)


def last_screen(
    place: Place,
    record: dict[str, Any],
    max_steps: int,
    lr_schedule: dict[str, Any],
    allow_targets: Sequence[str] = (),
) -> str:
    """How a run ended, where everything is, and the commands that go on from here, ready to be pasted.

    Args:
        place: of the run.
        record: what run.json says.
        max_steps: that it was to take.
        lr_schedule: configuration of its learning-rate schedule.
        allow_targets: packages of somebody's own, which each command has to admit again.
    """
    directory = place.directory
    shown = shlex.quote(readable(directory, place.cwd))
    table = [f"  {line}" for line in metrics_table(directory, record.get("measured") or {})]
    ended = [f"{record['status']} at step {record['step']} after {duration(record['wall_seconds'])}"]
    if record.get("why") and (record["status"] != "finished" or record["step"] != max_steps):
        ended.append(f"  because       {record['why']}")
    # why a run did not finish is near the last line, where people look
    lines = ["", *(ended + table if record["status"] == "finished" else table + ended)]
    lines.append(f"  everything    {shown}")
    if grids := sorted((directory / "samples").glob("step_*.png")):
        lines.append(f"  samples       {shlex.quote(readable(grids[-1], place.cwd))}")
    has_checkpoint = (directory / "checkpoints" / checkpoints.LAST).exists()
    if has_checkpoint:
        lines.append(f"  checkpoint    {shown}/checkpoints/{checkpoints.LAST}")
    if offline := logged_offline(directory, record):
        lines.append(f"  dashboard     {next_commands.sync(offline, place.cwd)}")
    by_itself = place.found_again and not is_complete(record)
    has_ended = 0 <= max_steps <= record["step"]
    if by_itself:
        lines.append("  continue it   the same command again")
    if has_checkpoint:
        if not has_ended or not is_complete(record):
            title = "elsewhere" if by_itself else "continue it"
            lines.append(f"  {title:<14}{next_commands.go_on(place, allow_targets)}")
        lines.append(f"  sample it     {next_commands.sample(place, allow_targets)}")
        lines.append(f"  measure it    {next_commands.measure(place, allow_targets)}")
        lines.append(f"  look at it    {next_commands.report(place)}")
        if has_ended:
            on = next_commands.train_on(place, max_steps, lr_schedule, allow_targets)
            lines.append(f"  train on      {on}")
    return "\n".join(lines)


def metrics_table(directory: Path, measured: Mapping[str, str]) -> list[str]:
    """Lines of a table: how losses and what else was measured began, what was best when, how they ended.

    Args:
        directory: of the run, whose metrics.csv is read; one that cannot be read gives no lines.
        measured: measures of samples: their names in that file, and their full ones.
    """
    try:
        found = curves(directory, most_points=2)
    except UsageError:
        return []
    rows = []
    for name, curve in found.items():
        if name != "train/loss" and not name.startswith("val/") and name not in measured:
            continue
        match = OWN_NAME.fullmatch(measured.get(name, "").rpartition("/")[2])
        measure = "" if match is None else match[1]
        best = curve.highest if measure in HIGHER_IS_BETTER else curve.lowest
        if best is not None and curve.last is not None:
            first = "" if curve.values[0] is None else f"{curve.values[0]:.4f}"
            # of nearest neighbours neither end is best
            shown = ("", "") if measure == "nearest" else (f"{best[1]:.4f}", f"{best[0]:,}")
            rows.append((name, first, *shown, f"{curve.last[1]:.4f}"))
    if not rows:
        return []
    rows.insert(0, ("", "first", "best", "at step", "last"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
