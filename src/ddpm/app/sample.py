"""What sample.py does once its configuration is checked."""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from ddpm.app import terminal
from ddpm.app.command_line import Job
from ddpm.app.devices import is_sharded, loading_device
from ddpm.app.own import own_settings
from ddpm.app.pictures_given import read_start
from ddpm.app.request import Request
from ddpm.app.run_directory import Place
from ddpm.app.shared_work import Work, on_devices
from ddpm.data.augmentation import normalize
from ddpm.data.prepared.cache import Cache
from ddpm.diffusion.validity import check_combination
from ddpm.errors import UsageError
from ddpm.run import Run, load
from ddpm.runtime.compilation import COMPILING, keep_compiled
from ddpm.runtime.computing import choose
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.pieces import Parts, Pieces, write_npz
from ddpm.runtime.progress import Countdown, duration
from ddpm.runtime.sharing import Sharing, size_of_a_piece
from ddpm.runtime.writing import whole, write_whole
from ddpm.sampling.batches import WORTH_A_WORD, images_at_once, seconds_to_draw
from ddpm.sampling.drawing import Drawing, labels_of
from ddpm.sampling.figures import png, sheet, to_uint8
from ddpm.sampling.image_files import names, write_images
from ddpm.targets import build
from ddpm.training.checkpoints.archive import fingerprint

log = logging.getLogger(__name__)

MOST_IN_A_GRID = 400

SAMPLES, IMAGES = "samples.npz", "images"
"""What the images are written to, whole, when all of them are drawn: a file of arrays, a folder of PNGs."""

FORMATS = {"npz": (SAMPLES,), "png": (IMAGES,), "both": (SAMPLES, IMAGES)}


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be sampled, and the images to start from.

    Raises:
        UsageError: where there are none, or the settings make no sense.
    """
    torch.set_float32_matmul_precision("high")  # as in training: TF32 on GPUs
    return on_devices(config, place, partial(_work, config, place))


def _work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be drawn; None where all of it is there."""
    run = load(config["ckpt"], loading_device(trainer), config["allow_targets"])
    module = run.module
    if module.device.type == "cpu":
        keep_freed_memory()
    if module.num_classes is None and config["guidance"]:
        raise UsageError(
            "guidance: this run was trained without classes; leave it out, or train with conditional=true"
        )
    label_drop = run.config.get("data", {}).get("label_drop", 0.0)
    sampler, guidance = (build(group, own_settings(run, config, group)) for group in ("sampler", "guidance"))
    try:
        start, known, sources = read_start(config, run)
        labels = run.numbered(config["labels"])
        if labels is None and sources and label_drop and module.num_classes is not None:
            labels = [-1]  # the image says what to draw
        check_combination(
            schedule=module.schedule,
            objective=module.objective,
            variance=module.variance,
            weighting=module.weighting,
            sampler=sampler,
            guidance=guidance,
            num_classes=module.num_classes,
            label_drop=label_drop,
        )
        drawing = Drawing(
            module,
            seed=config["seed"],
            sampler=sampler,
            weights=config["weights"],
            labels=labels,
            guidance=guidance,
            start=start,
            known=known,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    directory, n = place.directory, config["n"]
    given = labels_of(module, range(n), labels)
    files = _files(given, module.classes, n)
    size = size_of_a_piece(n, config["batch_size"] or images_at_once(module), trainer.world_size)
    may_choose = not is_sharded(trainer)
    try:
        computing = choose(
            trainer.strategy.root_device,
            module.num_parameters,
            drawing.nfe * math.ceil(n / size / trainer.world_size),
            precision=config["trainer"]["precision"],
            **{name: config[name] if may_choose else False for name in ("channels_last", "compile")},
        )
    except UsageError as error:  # about the precision
        raise UsageError(f"trainer.{error}") from error
    module.compute_as(computing)
    request = Request(config, _contents(config, run))
    if place.request is not None:
        place.request.refuse_another(directory, config, request.contents)
        if all((directory / name).exists() for name in FORMATS[config["format"]]):
            _refuse_lost(directory, config["format"], files)
            if trainer.is_global_zero:
                terminal.say(f"{directory}: holds these {n} images already")
            return None

    def begin() -> None:
        log.info("sampling from %s, step %d, %s weights", run.checkpoint, run.step, config["weights"])
        log.info("%d images at once, computed in %s on %s", size, computing, _devices(trainer))
        request.write(directory)
        if computing.compile:
            log.info(COMPILING)

    def draw(indices: range, on_step: Callable[[], None]) -> dict[str, np.ndarray]:
        drawn = drawing(indices, on_step=lambda *_: on_step())
        return {"images": to_uint8(drawn).permute(0, 2, 3, 1).cpu().numpy()}

    def share(sharing: Sharing) -> None:
        if computing.compile:
            keep_compiled(Cache().directory / "compiled")
            module.network.compile()
        if sharing.is_leader and not sharing.in_step:
            seconds = seconds_to_draw(drawing, range(n), size) / sharing.world_size
            if seconds > WORTH_A_WORD:
                log.info("drawing %d images in %d steps: about %s", n, drawing.steps, duration(seconds))
        channels, height, width = module.image_shape
        like = {"images": ((height, width, channels), np.dtype(np.uint8))}
        pieces = sharing.through("images", n, size, draw, title="sampling", steps=drawing.steps, like=like)
        if not sharing.is_leader:
            return
        first = np.concatenate([*_first(pieces, MOST_IN_A_GRID)])
        drawn = normalize(torch.from_numpy(first).permute(0, 3, 1, 2))
        write_whole(directory / "grid.png", png(sheet(module, drawn, labels)))
        for name, picture in sources.items():
            write_whole(directory / f"{name}.png", png(to_uint8(picture).permute(1, 2, 0).numpy()))
        _write(directory, config["format"], pieces, given, files, sharing)
        terminal.say(str(directory))

    identity = {"the checkpoint": request.contents["ckpt"], **request.texts()}
    return Work("sample.log", "sampling", module, identity, begin, share)


def _devices(trainer: Trainer) -> str:
    """cpu; cuda:0; 4 devices (cuda)."""
    device = trainer.strategy.root_device
    return str(device) if trainer.world_size == 1 else f"{trainer.world_size} devices ({device.type})"


def _contents(config: Mapping[str, Any], run: Run) -> dict[str, str]:
    """Fingerprints of what is drawn from, by key."""
    pictures = {key: config[key] for key in ("start", "end", "mask") if config[key] is not None}
    return {
        "ckpt": fingerprint(run.checkpoint),
        **{
            key: hashlib.sha256(Path(os.path.expanduser(path)).read_bytes()).hexdigest()[:16]
            for key, path in pictures.items()
        },
    }


def _first(pieces: Pieces, most: int) -> Iterator[np.ndarray]:
    """The first images, uint8 [N, H, W, C] at a time."""
    left = most
    for part in pieces:
        if left <= 0:
            return
        yield part["images"][:left]
        left -= len(part["images"])


def _files(labels: list[int] | None, classes: list[str] | None, n: int) -> list[str]:
    """The name of each image's file."""
    if labels is None or classes is None:
        return names(n)
    return names(n, [None if label < 0 else classes[label] for label in labels])


def _refuse_lost(directory: Path, chosen: str, files: list[str]) -> None:
    """Refuse a folder of images from which some were taken.

    Raises:
        UsageError: naming one.
    """
    if IMAGES not in FORMATS[chosen]:
        return
    if lost := sorted({*files} - {*os.listdir(directory / IMAGES)}):
        raise UsageError(
            f"{directory / IMAGES}: {len(lost)} of {len(files)} images are not there any more, such as "
            f"{lost[0]}; delete the folder, and the same command draws them again"
        )


def _write(
    directory: Path,
    chosen: str,
    pieces: Pieces,
    labels: list[int] | None,
    files: list[str],
    sharing: Sharing,
) -> None:
    """Write all images in the formats that were chosen, those that are not there yet."""
    formats = [name for name in FORMATS[chosen] if not (directory / name).exists()]
    if IMAGES in formats:
        with Countdown("writing images", len(files)) as countdown:

            def on_image(done: int) -> None:
                countdown.advance(done)
                sharing.progressed(False)

            write_images(directory / IMAGES, (part["images"] for part in pieces), files, on_image)
    if SAMPLES in formats:
        _write_samples(directory / SAMPLES, pieces, labels)


def _write_samples(path: Path, pieces: Pieces, labels: list[int] | None) -> None:
    """arr_0: uint8 [N, H, W, C]; where there are classes arr_1: int64 [N], as in ADM's reference batches. It
    takes memory for a piece.
    """
    shape = (pieces.n, *next(iter(pieces))["images"].shape[1:])
    arrays: dict[str, Parts] = {"arr_0": (shape, np.dtype(np.uint8), (part["images"] for part in pieces))}
    if labels is not None:
        given = np.array(labels, np.int64)
        arrays["arr_1"] = (given.shape, given.dtype, [given])
    with whole(path) as temporary:
        write_npz(temporary, arrays)
