"""Going on from a checkpoint: the same run (in its directory, or by `ckpt=`), or a new one from its weights
(`init=`).
"""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from csv import DictReader
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch.loggers import Logger

from ddpm.app import check
from ddpm.app.build import describe
from ddpm.app.grammar import absolute
from ddpm.app.left_run import LeftRun, is_complete, is_within, logged_offline, read_record, starts
from ddpm.app.run_directory import Place
from ddpm.app.same_run import as_begun, differences
from ddpm.data.module import ImageDataModule
from ddpm.diffusion.validity import check_weights
from ddpm.errors import UsageError
from ddpm.run import found
from ddpm.targets import build
from ddpm.training import snapshots
from ddpm.training.callbacks.samples import FOLDER, NAMES
from ddpm.training.checkpoints import LAST, averaged_weights, numbered
from ddpm.training.loggers import MetricsCSV, WandbLogger
from ddpm.training.loggers.wandb_files import last_step
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)

NAMED = 12
"""Classes that a message names."""


PASSED_OVER = "passed_over"
"""Ending of a checkpoint that a run did not go on from, though it is of a later step."""


class OtherOrderError(UsageError):
    """The classes are those of the checkpoint, in another order.

    Attributes:
        classes: of the checkpoint.
    """

    def __init__(self, message: str, classes: Sequence[str]):
        super().__init__(message)
        self.classes = classes


@dataclass(frozen=True)
class Resume:
    """The checkpoint that a run goes on from.

    Attributes:
        path: of the file.
        step: completed optimizer steps.
        wandb_id: of the W&B run that goes on, or None.
        offline: the directories that it was logged to while offline.
        lr_schedule: configuration of the learning-rate schedule from here on. One that is new begins at its
            step 0 here: where it is to last as long as the run, only the steps that are left are its.
        accumulation: `trainer.accumulate_grad_batches` of the run; None where it is not known.
    """

    path: Path
    step: int
    wandb_id: str | None
    lr_schedule: Mapping[str, Any]
    offline: Sequence[Path] = ()
    accumulation: int | None = None

    @property
    def run(self) -> Path | None:
        """The run directory that the file lies in, if it lies in one."""
        return self.path.parents[1] if self.path.parent.name == "checkpoints" else None

    def take_over_history(self, csv: MetricsCSV) -> None:
        """Begin metrics.csv with the rows up to this step, and drop what a directory that is gone on with has
        of later ones. Its later checkpoints get another name: what could not be read may yet be read.
        """
        directory = csv.path.parent
        if self.run is not None and (self.run / "metrics.csv").exists():
            csv.continue_from(self.run / "metrics.csv", self.step)
        else:
            csv.path.unlink(missing_ok=True)
            if self.step:
                log.warning(
                    "metrics.csv has no rows of the first %s steps: there is no %s",
                    f"{self.step:,}", (self.run or self.path.parent) / "metrics.csv",
                )  # fmt: skip
        drop_grids(directory, after=self.step)
        if self.run is not None and directory != self.run:
            snapshots.take_over(directory, self.run, up_to=self.step)
        if directory == self.run:
            for step, later in numbered(self.path.parent).items():
                if step > self.step:
                    later.replace(later.with_name(f"{later.name}.{PASSED_OVER}"))
            last = self.path.with_name(LAST)
            if last.is_dir():
                last.replace(last.with_name(f"{LAST}.{PASSED_OVER}"))
            elif last.exists() and not last.samefile(self.path):
                last.unlink()  # of a later step, or damaged

    def log_what_was_lost(self, csv: MetricsCSV, loggers: Sequence[Logger]) -> None:
        """Give W&B, offline, the rows up to this step that an earlier start had not yet brought to the disk
        when it was killed; those alone, for what it gets twice would stand there twice.
        """
        offline = [one for one in loggers if isinstance(one, WandbLogger) and one.sync_dirs]
        if not offline or not self.offline or not csv.path.exists():
            return
        with suppress(OSError):
            last = max(-1 if (step := last_step(path)) is None else step for path in self.offline)
            with csv.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in DictReader(file) if last < int(row["step"]) <= self.step]
            for row in rows:
                values = {name: float(value) for name, value in row.items() if value and name != "step"}
                for logger in offline:
                    logger.log_metrics(values, step=int(row["step"]))


def begin_anew(csv: MetricsCSV) -> None:
    """Drop what a start that had saved nothing yet left in the directory of metrics.csv."""
    csv.path.unlink(missing_ok=True)
    drop_grids(csv.path.parent, after=-1)


def drop_grids(directory: Path, after: int) -> None:
    """Drop the grids of later steps, by whichever weights; they will be drawn again."""
    for grid in (directory / FOLDER).glob("*.png"):
        named = re.fullmatch(rf"(?:{'|'.join(NAMES.values())})(\d{{8,}})", grid.stem)
        if named and not grid.is_dir() and int(named[1]) > after:
            grid.unlink()


def resume_on(config: Mapping[str, Any], data: ImageDataModule, left: LeftRun | None = None) -> Resume | None:
    """The checkpoint that a run goes on from: the newest in its own directory, or that of `ckpt=`.

    Classes of the data set are numbered from here on as they were there: earlier versions put names in
    another order.

    Args:
        config: of the run that is to go on.
        data: its data set.
        left: the run in its directory.

    Returns:
        None for a run that begins.

    Raises:
        UsageError: as `resume`.
    """
    key, path = _source(config, left)
    if path is None:
        return None
    record = left.record if left is not None else None
    try:
        return resume(config, describe(data), path, key, record)
    except OtherOrderError as error:
        try:
            data.order_classes(error.classes)
        except ValueError:
            raise error from None
    return resume(config, describe(data), path, key, record)


def _source(config: Mapping[str, Any], left: LeftRun | None) -> tuple[str, str | None]:
    """What a run goes on from, and the key that named it.

    The checkpoints in its own directory come first. But for one of them that was typed: where the run has not
    begun from it yet, it goes back to it.
    """
    ckpt = config["ckpt"]
    if left is None or not _has_checkpoints(left.directory):
        return "ckpt", ckpt
    if ckpt and is_within(ckpt, left.directory) and left.record.get("continued_from") != str(absolute(ckpt)):
        return "ckpt", ckpt
    return "hydra.run.dir", str(left.directory)


def _has_checkpoints(directory: Path) -> bool:
    return (directory / "checkpoints" / LAST).exists() or bool(numbered(directory / "checkpoints"))


def resume(
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    path: str | None = None,
    key: str = "ckpt",
    record: Mapping[str, Any] | None = None,
) -> Resume:
    """A checkpoint, which must belong to the run that the configuration describes.

    Args:
        config: of the run that is to go on.
        data: its data set, described.
        path: of the checkpoint or its run directory; by default that of `ckpt=`.
        key: where the user named it, for messages.
        record: what `run.json` says; by default that of the run that the checkpoint lies in.

    Raises:
        UsageError: naming what differs, or why there is nothing left to do; `OtherOrderError` where only the
            classes are in another order.
    """
    file, checkpoint = found(path or config["ckpt"], key, whole=False)
    step, max_steps = checkpoint["global_step"], config["trainer"]["max_steps"]
    own = checkpoint["config"].get("lr_schedule") or {}
    record = _record_of(file) if record is None else record
    lr_schedule = as_begun(config["lr_schedule"], own, max_steps, starts(record))
    as_it_was = lr_schedule == own
    ends = lr_schedule.get("total_steps")
    if not as_it_was and ends == max_steps > step:
        lr_schedule = {**lr_schedule, "total_steps": max_steps - step}
    offline = logged_offline(_directory_of(file), record)
    wandb_id = record.get("wandb_id") or checkpoint.get("wandb_id")
    accumulation = (checkpoint["config"].get("trainer") or {}).get("accumulate_grad_batches")
    result = Resume(file, step, wandb_id, lr_schedule, offline, accumulation)
    differing = [
        f"{name} is {here!r} here and {there!r} in the checkpoint"
        for name, here, there in differences(config, checkpoint["config"])
    ]
    if not differing and data["fingerprint"] != checkpoint["data"]["fingerprint"]:
        _refuse_images(f"{key}={file}", data, checkpoint["data"])
    if differing:
        raise UsageError(
            f"{key}={file}: belongs to another run: {differing[0]}. ckpt= alone continues it with its own "
            "configuration; init= starts a new run from its weights"
        )
    more = step * 2 if step else 1000
    # killed in its last step, which has more to it than the checkpoint, a run goes on to the end of it
    if 0 <= max_steps < step or (max_steps == step and (not record or is_complete(record))):
        rate = " lr_schedule=constant" if ends is not None else ""
        raise UsageError(
            f"trainer.max_steps={max_steps}: the run in {key}={file} is at step {step} already; train "
            f"on with a higher one, as trainer.max_steps={more}{rate}"
        )
    if as_it_was and isinstance(ends, int) and max_steps > ends:
        raise UsageError(
            f"trainer.max_steps={max_steps}: the learning rate of this run falls to 0 at step {ends}; choose "
            "another schedule for what comes after, as lr_schedule=constant"
        )
    return result


def logged_before(resume: Resume | None, left: LeftRun | None) -> tuple[str | None, Sequence[Path]]:
    """The id of the W&B run that goes on, and the directories that it was logged to while offline."""
    if resume is not None:
        return resume.wandb_id, resume.offline
    return (left.record.get("wandb_id"), logged_offline(left.directory, left.record)) if left else (None, ())


def chosen(place: Place, resume: Resume | None) -> dict[str, str]:
    """The option of each group: those that the run which goes on was made of, and what is typed now."""
    typed = {word.partition("=")[0] for word in place.overrides}
    earlier = _record_of(resume.path).get("choices") if resume is not None and place.left is None else None
    before = (
        {str(group): str(name) for group, name in earlier.items()} if isinstance(earlier, Mapping) else {}
    )
    return {**place.choices, **{group: name for group, name in before.items() if group not in typed}}


def _directory_of(file: Path) -> Path:
    """The run directory that a checkpoint lies in, if it lies in one."""
    return file.parents[1] if file.parent.name == "checkpoints" else file.parent


def _record_of(file: Path) -> Mapping[str, Any]:
    """What `run.json` says of the run that a checkpoint lies in; nothing where there is none."""
    try:
        return read_record(_directory_of(file))
    except (OSError, ValueError):
        return {}


def start_from(module: DDPM, init: str) -> None:
    """Take over the averaged weights of a checkpoint, for the network and its average alike.

    Raises:
        UsageError: where they are of another network.
    """
    path, checkpoint = found(init, "init")
    config, data = checkpoint["config"], checkpoint["data"]
    condition = data.get("condition") or {}
    check.check_group("variance", config["variance"])
    try:
        check_weights(
            variance=module.variance,
            num_classes=module.num_classes,
            condition=module.condition_sizes,
            their_variance=build("variance", config["variance"]),
            their_num_classes=len(data["classes"]) if config["conditional"] else None,
            their_condition=(condition.get("image_channels", 0), condition.get("vector_size", 0)),
        )
    except ValueError as error:
        raise UsageError(f"init={path}: {error}") from error
    own = dict(module.network.named_parameters())
    theirs = averaged_weights(checkpoint)
    for name in sorted({*own, *theirs}):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (own, theirs)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"init={path}: is of another network: {name} is {shapes[0]} in this one and {shapes[1]} "
                "there; choose the model that it was trained with"
            )
    module.start_from(theirs)


def _refuse_images(named: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> NoReturn:
    """Say what differs between the data set and that of a checkpoint, both described, and what to do.

    Args:
        named: the checkpoint, with the key that named it.
        here: the data set.
        there: that of the checkpoint.

    Raises:
        UsageError: always.
    """
    begin = f"{named}: the images are not those that it was trained on"
    end = "; init= starts a new run from its weights"
    classes, theirs = here.get("classes"), there.get("classes")
    if classes != theirs:
        differs = f"{begin}: their classes are {_some(classes)} here and {_some(theirs)} in the checkpoint"
        if classes and theirs and sorted(classes) == sorted(theirs):
            raise OtherOrderError(f"{differs}, in another order{end}", theirs)
        raise UsageError(
            f"{differs}. Folders such as train and test are parts now, not classes, and a folder around "
            f"everything is none; the version that trained it continues it as it was{end}"
        )
    counts = [tuple(data.get(name) for name in ("num_train", "num_validation")) for data in (here, there)]
    if counts[0] != counts[1]:
        said = [
            next((line for line in data.get("understood") or () if line.startswith("images: ")), None)
            or f"{train} to train on, {validation} held out"
            for data, (train, validation) in zip((here, there), counts, strict=True)
        ]
        said = [text.removeprefix("images: ") for text in said]
        raise UsageError(
            f"{begin}: here there are {said[0]}; in the checkpoint {said[1]}. data.split= and "
            f"data.validation_split= choose the parts{end}"
        )
    raise UsageError(
        f"{begin}: they are as many, with other pixels or labels. Their files have changed, or this version "
        f"reads them otherwise; the version that trained it continues it as it was{end}"
    )


def _some(classes: Sequence[str] | None) -> str:
    named = ", ".join(str(name) for name in (classes or ())[:NAMED])
    return f"{named} ..." if len(classes or ()) > NAMED else named or "none"
