"""What `ddpm figure` does: loads runs, has a figure drawn, and writes it."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ddpm import bounded
from ddpm.app import figure_arguments, terminal
from ddpm.app.as_trained import own_data, show_as_to
from ddpm.app.named_run import check_run
from ddpm.app.next_commands import readable
from ddpm.app.run_configuration import OWN
from ddpm.data.augmentation import normalize
from ddpm.data.images import DataSet, ImageSet
from ddpm.data.module import ImageDataModule
from ddpm.errors import UsageError
from ddpm.evaluation import neighbours_figure as neighbours
from ddpm.random import permutation
from ddpm.report.figures import legend, loss, path
from ddpm.run import Run, load
from ddpm.runtime.progress import Countdown, duration
from ddpm.sampling.batches import seconds_a_use
from ddpm.sampling.captions import legible
from ddpm.sampling.conditions import HeldOut
from ddpm.sampling.drawing import labels_of
from ddpm.sampling.figures import denoising, files, forward, schedule, to_uint8
from ddpm.sampling.figures.film import Film
from ddpm.sampling.figures.style import styled
from ddpm.training.loggers.metrics_csv import rows_by_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

FRAMES = 60
"""Of an animation."""

ON_THE_WAY = 200
"""Points of a way in the plane."""

HELD_OUT = 500
"""Held-out images that are compared with training images."""

MEASURED = 128
"""Held-out images of which the loss over t is computed."""

SOON = 30.0
"""Seconds that something may take which nobody asked for."""


def draw(arguments: argparse.Namespace) -> int:
    """Draw a figure, write it, and print where it is; the exit code.

    Args:
        arguments: as `figure_arguments` reads them.

    Raises:
        UsageError: where a run, an option or the file does not fit.
        WriteError: where the file cannot be written.
    """
    figure_arguments.check(arguments)
    out = _target(arguments)
    terminal.set_up(None, leader=True)
    torch.set_float32_matmul_precision("high")  # as in sampling: TF32 on GPUs
    makes = {
        "forward": _forward,
        "denoising": _denoising,
        "schedule": _schedule,
        "loss": _loss,
        "path": _path,
        "neighbours": _neighbours,
    }
    makes[arguments.figure](arguments, out)
    print(readable(out, Path.cwd()))
    return 0


def _target(arguments: argparse.Namespace) -> Path:
    """The file that is to be written.

    Raises:
        UsageError: where its ending is not known, or it cannot be written.
    """
    figure, out = arguments.figure, arguments.out
    if out is None:
        one = len(arguments.runs) == 1
        # beside the pictures of training, some of which have the same names
        folder = _directory(arguments.runs[0]) / "figures" / "drawn" if one else Path.cwd()
        out = folder / f"{figure}.png"
    out = Path(os.path.expanduser(out)).absolute()
    known = (*files.STILL, *(files.MOVING if figure in figure_arguments.MOVING else ()))
    ending = out.suffix.lower()
    if ending not in known:
        what = f"{ending or 'no ending'} is no kind of file for {figure}"
        raise UsageError(f"--out {out}: {what}; there are {', '.join(known)}")
    if out.is_dir():
        raise UsageError(f"--out {out}: is a directory; name a file in it")
    there = next(parent for parent in out.parents if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "cannot be written to" if there.is_dir() else "is no directory"
        raise UsageError(f"--out {out}: {there} {why}; name a file elsewhere with --out")
    if ending == ".mp4":
        files.encoder()  # before anything is computed
    return out


def _directory(run: Path) -> Path:
    """The directory of a run, which may be named by one of its checkpoints."""
    run = Path(os.path.expanduser(run)).absolute()
    if not run.is_file():
        return run
    return run.parents[1] if run.parent.name == "checkpoints" else run.parent


def _write(made: "Figure | Film", arguments: argparse.Namespace, out: Path) -> None:
    if not isinstance(made, Film):
        files.write_figure(made, out, arguments.dpi)
        return
    with Countdown("drawing frames", len(made)) as countdown:
        files.write_film(made, out, countdown.advance)


def _moves(out: Path) -> bool:
    return out.suffix.lower() in files.MOVING


def _size(arguments: argparse.Namespace) -> dict[str, float]:
    return {"width": arguments.width, "dpi": arguments.dpi}


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


# Figures of the process alone


def _forward(arguments: argparse.Namespace, out: Path) -> None:
    run = _of_images(_load(arguments))
    data, seed = _data(run), _or(arguments.seed, 0)
    images = _held(data, "validation") or _held(data, "train")
    if images is None:
        raise UsageError("forward: the images of this run are streamed, and none are held out to be shown")
    moves = _moves(out)
    shown = images.copy(_chosen(images, _or(arguments.n, 10 if moves else 4), seed))
    x_0 = normalize(torch.from_numpy(shown.images))
    names = [""] * len(shown)
    if shown.labels is not None and data.classes is not None:
        classes = legible(list(map(str, data.classes)))
        names = [classes[label] for label in shown.labels]
    common = {"seed": seed, **_size(arguments)}
    with styled(dark=arguments.dark, texts=names):
        of = run.module.schedule
        if moves:
            _write(forward.film(of, x_0, steps=_or(arguments.steps, FRAMES), **common), arguments, out)
        else:
            _write(forward.draw(of, x_0, names, steps=_or(arguments.steps, 8), **common), arguments, out)


def _schedule(arguments: argparse.Namespace, out: Path) -> None:
    runs = [_load(arguments, index) for index in range(len(arguments.runs))]
    names = _labels([run.config for run in runs], arguments, legend.OF_THE_PROCESS)
    processes = [
        schedule.Process(name, run.module.schedule, run.module.parametrization, run.module.weighting)
        for name, run in zip(names, runs, strict=True)
    ]
    with styled(dark=arguments.dark, texts=names):
        _write(schedule.draw(processes, width=arguments.width), arguments, out)


def _loss(arguments: argparse.Namespace, out: Path) -> None:
    for named in arguments.runs:
        run = _directory(named)
        if not (run / "metrics.csv").exists():
            if run.is_dir():
                check_run(named)
            if os.path.isfile(os.path.expanduser(named)):
                raise UsageError(f"{named}: lies in no run directory, there is no metrics.csv in {run}")
            what = "holds no metrics.csv, as a run directory does" if run.is_dir() else "there is no such run"
            raise UsageError(f"{run}: {what}; check the spelling")
    rows = [rows_by_step(_directory(run) / "metrics.csv") for run in arguments.runs]
    for run, own in zip(arguments.runs, rows, strict=True):
        if not any(loss.curve(own, name).size for name in (loss.TRAINING, loss.VALIDATION)):
            raise UsageError(f"{_directory(run) / 'metrics.csv'}: holds no loss yet, nothing can be drawn")
    names = _labels([_config(_directory(run)) for run in arguments.runs], arguments)
    curves = [
        loss.Curves(
            name,
            loss.curve(own, loss.TRAINING),
            loss.curve(own, loss.VALIDATION),
            None if arguments.by_t is False else _loss_by_t(arguments, index),
        )
        for index, (name, own) in enumerate(zip(names, rows, strict=True))
    ]
    with styled(dark=arguments.dark, texts=names):
        made = loss.draw(curves, scale=_or(arguments.scale, "log"), width=arguments.width)
        _write(made, arguments, out)


def _loss_by_t(arguments: argparse.Namespace, index: int) -> loss.ByT | None:
    """Of held-out images, where they are there and it does not take long, or was asked for."""
    asked = bool(arguments.by_t)
    try:
        run = _drawing(arguments, index)
        held_out = _held(_data(run), "validation")
        if held_out is None:
            raise UsageError("no images are held out")
    except UsageError as error:
        if asked:
            raise UsageError(f"--by-t: {error}") from error
        log.warning("the loss over t is left out: %s", error)
        return None
    module, chosen = run.module, _chosen(held_out, MEASURED, 0)
    shown = held_out.copy(chosen)
    seconds = seconds_a_use(module, len(shown)) * loss.POINTS
    if seconds > SOON and not asked:
        log.info("the loss over t is left out, it takes about %s: --by-t", duration(seconds))
        return None
    x_0 = normalize(torch.from_numpy(shown.images)).to(module.device)
    condition = None if module.conditions is None else module.conditions(chosen.tolist()).to(module.device)
    labels = None
    if module.num_classes is not None and shown.labels is not None:
        labels = torch.from_numpy(shown.labels).to(module.device)
    with module.evaluating(_or(arguments.weights, "ema")):
        return loss.by_t(module, x_0, labels, condition, seed=_or(arguments.seed, 0))


# Figures of samples


def _denoising(arguments: argparse.Namespace, out: Path) -> None:
    run, moves = _drawing(arguments), _moves(out)
    n = _or(arguments.n, 10 if moves else 3)
    points = _or(arguments.steps, FRAMES if moves else 8) - (0 if moves else 1)
    settings = _settings(arguments)
    trajectory, images = run.trajectory(n, points=points, **settings)
    names = _classes(run, n, settings["labels"])
    with styled(dark=arguments.dark, texts=names):
        if moves:
            _write(denoising.film(trajectory, images, **_size(arguments)), arguments, out)
        else:
            _write(denoising.draw(trajectory, images, names, **_size(arguments)), arguments, out)


def _path(arguments: argparse.Namespace, out: Path) -> None:
    run = _drawing(arguments)
    data = _data(run)
    among = _held(data, "train") or _held(data, "validation")
    if among is None or len(among) < 3 or np.prod(run.module.image_shape) < 2:
        raise UsageError("path: a plane needs at least 3 images of 2 pixels that somebody holds")
    n, settings = _or(arguments.n, 5), _settings(arguments)
    if settings.get("sampler") is None and "num_steps" not in settings:
        # its ways are smooth; what noise adds at every step hides where they go
        steps = min(ON_THE_WAY, run.module.schedule.num_timesteps)
        settings |= {"sampler": "ddim", "num_steps": steps}
    trajectory, images = run.trajectory(n, points=ON_THE_WAY, **settings)
    shown = among.copy(_chosen(among, path.MOST_POINTS, 0, in_turn=False))
    names = _classes(run, n, settings["labels"])
    with styled(dark=arguments.dark, texts=names):
        points = normalize(torch.from_numpy(shown.images))
        steps = _or(arguments.steps, 7)
        made = path.draw(trajectory, images, points, names, steps=steps, **_size(arguments))
        _write(made, arguments, out)


def _neighbours(arguments: argparse.Namespace, out: Path) -> None:
    run = _drawing(arguments)
    data = _data(run)
    training, held_out = _held(data, "train"), _held(data, "validation")
    if training is None:
        raise UsageError("neighbours: the images that this run was trained on are streamed, none are held")
    k = min(_or(arguments.k, 4), len(training))
    samples = to_uint8(run.sample(_or(arguments.n, 8), **_settings(arguments)))
    if held_out is not None:
        held_out = held_out.copy(_chosen(held_out, HELD_OUT, 0, in_turn=False))
    with styled(dark=arguments.dark):
        _write(neighbours.draw(samples, training, held_out, k=k, **_size(arguments)), arguments, out)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `Run.sample` is asked for."""
    named = {"sampler": arguments.sampler, "labels": arguments.labels, "weights": arguments.weights}
    steps = {} if arguments.num_steps is None else {"num_steps": arguments.num_steps}
    return {"seed": _or(arguments.seed, 0), **named, **steps}


def _classes(run: Run, n: int, labels: Sequence[str] | None) -> list[str]:
    """The names of the classes of n samples, "" for none."""
    shown = labels_of(run.module, range(n), run.numbered(labels))
    if shown is None or run.module.classes is None:
        return [""] * n
    classes = legible(run.module.classes)
    return ["" if label < 0 else classes[label] for label in shown]


# Runs and their data


def _of_images(run: Run) -> Run:
    """Refuse, with UsageError, a run that draws latents."""
    if run.module.draws_latents:
        raise UsageError(
            f"{run.directory}: draws latents, and this figure shows images; its samples are in the "
            "run's samples/ and figures/, and sample.py draws more"
        )
    return run


def _load(arguments: argparse.Namespace, index: int = 0) -> Run:
    check_run(arguments.runs[index])
    return load(arguments.runs[index], allow_targets=arguments.allow_targets)


def _drawing(arguments: argparse.Namespace, index: int = 0) -> Run:
    """A run that draws images, under the conditions of those that its data hold out."""
    run = _of_images(_load(arguments, index))
    if run.module.is_conditioned:
        run.module.conditions = HeldOut(_read_data(run))
    return run


def _config(directory: Path) -> dict[str, Any]:
    """What a run's config.yaml says; nothing where it cannot be read."""
    try:
        return bounded.yaml_values(directory / OWN)
    except UsageError:
        return {}


def _labels(
    configs: Sequence[dict[str, Any]],
    arguments: argparse.Namespace,
    among: Sequence[str] = legend.COMPARED,
) -> list[str]:
    return legend.labels(configs, [_directory(run).name for run in arguments.runs], among)


def _data(run: Run) -> DataSet:
    """The images of a run, read anew.

    Raises:
        UsageError: as `_read_data`.
    """
    return _read_data(run).data_set.pictures


def _read_data(run: Run) -> ImageDataModule:
    """The data of a run, read anew.

    Raises:
        UsageError: where it cannot be, or is no longer what it was.
    """
    data = own_data(run, {"data": None, "allow_targets": []})
    if data.image_shape != run.module.image_shape:
        raise UsageError(
            f"data: images are {list(data.image_shape)} (channels, height, width), and the run draws "
            f"{list(run.module.image_shape)}; its data is no longer what it was"
        )
    show_as_to(run, data)
    return data


def _held(data: DataSet, split: str) -> ImageSet | None:
    """The images of a split, as training shows them but for random changes; None where nobody holds any."""
    found = data.train if split == "train" else data.validation
    if not isinstance(found, ImageSet) or not len(found):
        return None
    return found if data.window is None else found.centre(data.window)


def _chosen(images: ImageSet, n: int, seed: int, *, in_turn: bool = True) -> np.ndarray:
    """Indices of up to n images, in an order that the seed shuffles.

    Args:
        images: of which some are chosen.
        n: how many.
        seed: of the choice.
        in_turn: where they have classes, an image of each class in turn.
    """
    count = len(images)
    order = permutation(seed, 0, count, np.arange(count))
    if in_turn and images.labels is not None:
        labels = images.labels[order]
        turn = np.empty(count, np.int64)
        for label in np.unique(labels):
            turn[labels == label] = np.arange((labels == label).sum())
        order = order[np.lexsort((labels, turn))]
    return order[:n]
