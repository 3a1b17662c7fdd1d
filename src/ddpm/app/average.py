"""What `python -m ddpm ema` does: an average of any length, of a run's weights, as a checkpoint."""

import math
from collections.abc import Sequence
from pathlib import Path

from ddpm.app import wide
from ddpm.errors import UsageError
from ddpm.run import directory_of, found
from ddpm.training import checkpoints
from ddpm.training.posthoc import with_average

KEYS = ("sigma_rel", "step")


def average(run: Path, settings: Sequence[str]) -> Path:
    """Write the checkpoint; its path.

    Args:
        run: run directory, or a checkpoint in it, whose step is then the last that counts.
        settings: KEY=VALUE of `KEYS`; sigma_rel is needed.

    Raises:
        UsageError: where a setting is none, or the run has no such average.
        OSError: where it cannot be written.
    """
    given: dict[str, float] = {}
    for text in settings:
        wide.check(text)
        key, _, value = text.partition("=")
        if key not in KEYS:
            raise UsageError(f"{text}: is no setting; there are {' and '.join(KEYS)}, as sigma_rel=0.05")
        try:
            given[key] = float(value) if key == "sigma_rel" else int(value)
        except ValueError as error:
            kind = "a number" if key == "sigma_rel" else "a whole number"
            raise UsageError(f"{text}: must be {kind}") from error
    if not math.isfinite(length := given.get("sigma_rel", math.nan)):
        raise UsageError("sigma_rel: nothing says how long the average is; give sigma_rel=0.05")
    step = None if "step" not in given else int(given["step"])
    written = {} if step is None else checkpoints.numbered(run.expanduser() / "checkpoints")
    file, checkpoint = found(written.get(step, run) if step is not None else run, "ema")
    directory = directory_of(file)
    made = with_average(checkpoint, directory, length, step)
    name = f"ema_{length:g}_step_{made['global_step']:08d}.ckpt"
    path = directory / "checkpoints" / name if file.parent.name == "checkpoints" else directory / name
    checkpoints.write(made, path)
    return path
