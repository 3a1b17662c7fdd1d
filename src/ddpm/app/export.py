"""What `python -m ddpm export` does: a run as diffusers reads it, with its model card, and on to the hub."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ddpm import bounded
from ddpm.app import left_run
from ddpm.app.measuring import figures
from ddpm.errors import UsageError
from ddpm.interop import hub
from ddpm.interop.diffusers import export_checkpoint
from ddpm.interop.schedulers import schedule_of
from ddpm.report import card, embedding, grids
from ddpm.report.card import Model, Value
from ddpm.training import checkpoints


def export(run: Path, out: Path, repository: str | None = None) -> int:
    """Write the directory and print where it is; the exit code.

    Args:
        run: run directory or checkpoint file.
        out: a directory that is empty or does not exist yet.
        repository: of the hub that it is sent to, OWNER/NAME.

    Raises:
        UsageError: where it could not be sent; the directory stays.
        ValueError: as `ddpm.interop.diffusers.export_checkpoint`.
    """
    if repository is not None:
        hub.check_name(repository)
    file, checkpoint = checkpoints.find(run)
    name = (repository or out.expanduser().absolute().name).rpartition("/")[2]
    directory = file.parents[1] if file.parent.name == "checkpoints" else file.parent
    picture = _picture(directory, checkpoint["global_step"])
    length = (checkpoint.get("average") or {}).get("sigma_rel")
    config = checkpoint["config"]
    if length is not None:  # of the run the card says what these weights are
        config = {**config, "ema": {"_target_": "ddpm.training.power_ema.PowerEMA", "sigma_rel": length}}
    model = Model(
        name,
        checkpoint["global_step"],
        config,
        checkpoint["data"],
        schedule_of(checkpoint["config"]["schedule"]).num_timesteps,
        record := _record(directory),
        [*_measured(directory, length), *_while_training(record)],
        picture is not None,
        repository,
    )
    beside = {card.NAME: card.card(model).encode()}
    if picture is not None:
        beside[card.PICTURE] = picture
    print(out := export_checkpoint(checkpoint, out, beside), flush=True)
    if repository is not None:
        print(hub.push(out, repository))
    return 0


def _record(directory: Path) -> Mapping[str, Any]:
    try:
        return left_run.read_record(directory)
    except UsageError:  # of an imported run, or a checkpoint by itself
        return {}


def _measured(directory: Path, sigma_rel: float | None) -> Iterator[Value]:
    """What evaluate.py has left in a run's directory, each with the weights that it is of; of averages that
    were made after training those of this length alone, None for the run's own.
    """
    for file in figures.files_in(directory):
        try:
            found = bounded.json_values(file, figures.MOST_BYTES)
        except UsageError:
            continue
        if found.get("sigma_rel") != sigma_rel:
            continue
        step, ckpt, weights = found.get("step"), found.get("ckpt"), str(found.get("weights") or "")
        if not isinstance(ckpt, str) or not isinstance(step, int) or _is_elsewhere(Path(ckpt), directory):
            continue
        for one in figures.figures_of(found).values():
            yield Value(one.name, one.measure, one.value, one.interval, step, weights)


def _is_elsewhere(ckpt: Path, directory: Path) -> bool:
    """Whether a checkpoint is of another run. One that is gone was here before the directory was moved."""
    return ckpt.exists() and not ckpt.resolve().is_relative_to(directory.resolve())


def _while_training(record: Mapping[str, Any]) -> Iterator[Value]:
    """What training itself has measured at its end of images that were held out or drawn."""
    metrics = record.get("metrics")
    for name, value in (metrics if isinstance(metrics, Mapping) else {}).items():
        number = figures.finite(value)
        if number is None or name.startswith(figures.COLOURS):
            continue
        if name.startswith(("val/", "samples/")):  # of a step that may be an earlier one
            yield Value(name, "", number)


def _picture(directory: Path, step: int) -> bytes | None:
    """The last grid of samples that was drawn up to a step, if it is a picture."""
    for drawn, path in reversed(grids.files(directory)):
        try:
            if drawn <= step:
                contents = bounded.contents(path, embedding.MOST_BYTES)
                Image.open(io.BytesIO(contents), formats=["PNG"]).verify()
                return contents
        except Exception:  # whatever Pillow makes of a damaged file
            continue
    return None
