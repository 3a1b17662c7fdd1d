"""What a training run says at its start and at its end."""

import logging
import shlex
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from ddpm.app import next_commands
from ddpm.app.continuing import Resume
from ddpm.app.inspect import understood
from ddpm.app.left_run import is_complete, logged_offline
from ddpm.app.next_commands import readable
from ddpm.app.run_directory import Place
from ddpm.data.module import ImageDataModule
from ddpm.runtime.computing import Computing
from ddpm.runtime.progress import duration
from ddpm.training import checkpoints
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
    """The lines at the start: where, on what, which network, how long, what it goes on from, and what goes on
    with it.
    """
    allow_targets = (module.config or {}).get("allow_targets", ())
    on = trainer.strategy.root_device.type.upper()
    log.info("run directory  %s", readable(place.directory, place.cwd))
    if place.lock is not None and place.lock.succeeded is not None:
        log.info("lock           taken over from %s, which is dead", place.lock.succeeded)
    for title, text in understood(data).items():
        log.info("%-15s%s", title, text)
    log.info("network        %s parameters, computed in %s", f"{module.num_parameters:,}", computing)
    log.info(
        "training       %s steps of %d images on %d %s%s",
        f"{trainer.max_steps:,}" if trainer.max_steps >= 0 else "endless",
        data.batch_size, trainer.world_size, on, "s" * (trainer.world_size > 1),
    )  # fmt: skip
    if (asked := ((module.config or {}).get("data") or {}).get("micro_batch")) is not None:
        log.info(
            "micro-batches  %d a step, of %d images on a device (data.micro_batch=%s)",
            trainer.accumulate_grad_batches,
            data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches),
            asked,
        )
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
    metrics = "  ".join(
        f"{k} {v:.4f}" for k, v in record["metrics"].items() if k.endswith("/loss") and v is not None
    )
    after = duration(record["wall_seconds"])
    lines = [
        "",
        f"{record['status']} at step {record['step']} after {after}  {metrics}",
        f"  everything    {shown}",
    ]
    if record.get("why") and (record["status"] != "finished" or record["step"] != max_steps):
        lines.insert(2, f"  because       {record['why']}")
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
        if has_ended:
            on = next_commands.train_on(place, max_steps, lr_schedule, allow_targets)
            lines.append(f"  train on      {on}")
    return "\n".join(lines)
