"""Files of averages as they were at steps of a training, of which averages of other lengths are made."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from ddpm.errors import UsageError
from ddpm.training.checkpoints.archive import RefusedFileError
from ddpm.training.checkpoints.guarded import Outline, guarded_load, outlined
from ddpm.training.checkpoints.layout import first_not_finite
from ddpm.training.checkpoints.whole_files import link, put
from ddpm.training.power_ema import PowerEMA
from ddpm.training.power_profiles import LONGEST
from ddpm.training.shards import gathered

DIRECTORY = "averages"
"""In the run's directory."""

WITHOUT = "where it is moved away, the other snapshots are used"


class Snapshot(NamedTuple):
    """Averages at a step.

    Attributes:
        num_updates: that they have had.
        averages: parameters by name, by length.
    """

    num_updates: int
    averages: Mapping[float, Mapping[str, Tensor]]


def kept(run: Path) -> dict[int, Path]:
    """The snapshots in a run's directory, by step."""
    found = {
        path: re.fullmatch(r"step_(\d{8,})\.pt", path.name) for path in (run / DIRECTORY).glob("step_*.pt")
    }
    return dict(sorted((int(match[1]), path) for path, match in found.items() if match))


def path_of(run: Path, step: int) -> Path:
    """The file of a step."""
    return run / DIRECTORY / f"step_{step:08d}.pt"


def write(average: PowerEMA, path: Path, *, leads: bool) -> None:
    """Write the averages as they are now. Every process must call it; the first writes.

    Args:
        average: of the training.
        path: of the file.
        leads: whether this process is the first.

    Raises:
        ValueError: where they hold NaN or infinity.
        OSError: where it cannot be written; then nothing is left of it.
    """
    content = {"num_updates": average.num_updates, "averages": average.parameters()}
    content = gathered(content, keep=leads)
    if not leads:
        return
    if (name := first_not_finite({"ema": content["averages"]})) is not None:
        raise ValueError(f"{name} holds NaN or infinity")
    put(content, path)


def read(path: Path) -> Snapshot:
    """The averages in a file.

    Raises:
        UsageError: where it cannot be read or holds something else; names the file.
    """
    try:
        content = guarded_load(path)
    except (RefusedFileError, OSError) as error:
        raise UsageError(f"{path}: cannot be read, {error}; {WITHOUT}") from error
    if (found := snapshot_of(content)) is None or first_not_finite({"ema": content["averages"]}) is not None:
        raise UsageError(f"{path}: holds no averages; {WITHOUT}")
    return found


def described(path: Path) -> Snapshot:
    """The averages in a file, with outlines in place of tensors: many of them are larger than memory.

    Raises:
        UsageError: as `read`.
    """
    try:
        found = snapshot_of(outlined(path), Outline)
    except (RefusedFileError, OSError) as error:
        raise UsageError(f"{path}: cannot be read, {error}; {WITHOUT}") from error
    if found is None:
        raise UsageError(f"{path}: holds no averages; {WITHOUT}")
    return found


def snapshot_of(content: Any, kind: type = Tensor) -> Snapshot | None:
    """What a file holds, where it is a snapshot of tensors, or of what stands for them."""
    if not isinstance(content, Mapping) or not isinstance(content.get("averages"), Mapping):
        return None
    count, averages = content.get("num_updates"), {}
    for text, parameters in content["averages"].items():
        try:
            length = float(text)
        except (TypeError, ValueError):
            return None
        right = isinstance(parameters, Mapping) and all(isinstance(one, kind) for one in parameters.values())
        if not (right and 0 < length <= LONGEST):
            return None
        averages[length] = parameters
    return Snapshot(count, averages) if type(count) is int and count > 0 and averages else None


def drop(run: Path, after: int) -> None:
    """Drop the snapshots of later steps, which come again, and what writes that were killed have left."""
    for step, path in kept(run).items():
        if step > after:
            path.unlink(missing_ok=True)
    for path in (run / DIRECTORY).glob(".step_*.pt.part"):
        path.unlink(missing_ok=True)


def take_over(run: Path, other: Path, up_to: int) -> None:
    """Give a run that goes on from another the snapshots that this one has up to a step."""
    for step, path in kept(other).items():
        if step <= up_to:
            (run / DIRECTORY).mkdir(parents=True, exist_ok=True)
            link(path, path_of(run, step))
