"""What sample.py does once its configuration is checked."""

import logging
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from ddpm.app import conditions_given, pictures_given, terminal
from ddpm.app.asked_rows import asked_rows, grid_of
from ddpm.app.command_line import Job
from ddpm.app.devices import is_sharded, loading_device
from ddpm.app.images_drawn import files_of, first_images, images_are_there, write_images
from ddpm.app.named_weights import named_weights
from ddpm.app.request import Request
from ddpm.app.reverse_process import sampler_and_guidance
from ddpm.app.run_directory import Place
from ddpm.app.shared_work import Work, on_devices
from ddpm.data.prepared.cache import Cache
from ddpm.errors import UsageError
from ddpm.run import load
from ddpm.runtime.compilation import COMPILING, keep_compiled
from ddpm.runtime.computing import choose
from ddpm.runtime.memory import keep_freed_memory
from ddpm.runtime.progress import duration
from ddpm.runtime.sharing import Sharing, size_of_a_piece
from ddpm.runtime.writing import write_whole
from ddpm.sampling.batches import WORTH_A_WORD, images_at_once, seconds_to_draw
from ddpm.sampling.conditions import always
from ddpm.sampling.drawing import labels_of
from ddpm.sampling.figures import grid, png, to_uint8
from ddpm.sampling.seen import is_decoded, latents_of, seen, seen_said
from ddpm.training.checkpoints.archive import fingerprint
from ddpm.training.guides import contents_of_guide, guide_of
from ddpm.training.module import DDPM

log = logging.getLogger(__name__)

MOST_IN_A_GRID = 400


def prepare(config: dict[str, Any], place: Place) -> Job:
    """Load the run that is to be sampled, and the images to start from.

    Raises:
        UsageError: where there are none, or the settings make no sense.
    """
    torch.set_float32_matmul_precision("high")  # as in training: TF32 on GPUs
    return on_devices(config, place, partial(_work, config, place))


def _work(config: dict[str, Any], place: Place, trainer: Trainer) -> Work | None:
    """What is to be drawn; None where all of it is there."""
    run = load(
        config["ckpt"], loading_device(trainer), config["allow_targets"], sigma_rel=config["sigma_rel"]
    )
    module = run.module
    if module.device.type == "cpu":
        keep_freed_memory()
    sampler, guidance = sampler_and_guidance(run, config)
    try:
        found = conditions_given.read(config, run)
        given = pictures_given.read(config, run)
        module.conditions = found.conditions
        if config["shared_t"] is not None and found.conditions is not None:
            module.conditions = always(found.conditions, 0)  # images that share x_t share it too
        labels = run.numbered(config["labels"])
        if labels is None and module.num_classes is not None:
            if given.sources and run.label_drop > module.condition_drop:
                labels = [-1]  # the image says what to draw; training has shown conditions without a class
            elif config["shared_t"] is not None:
                labels = labels_of(module, [0])  # that of image 0, whose x_t is shared
        asked = asked_rows(
            config,
            module,
            given,
            seed=config["seed"],
            sampler=sampler,
            weights=config["weights"],
            labels=labels,
            guidance=guidance,
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
    directory, n, rows = place.directory, config["n"], asked.rows
    classes = labels_of(module, range(n), labels)
    of_all = None if classes is None else classes * len(rows)
    files = files_of(n * len(rows), of_all, module.classes)
    size = size_of_a_piece(n, config["batch_size"] or images_at_once(module), trainer.world_size)
    may_choose = not is_sharded(trainer)
    try:
        computing = choose(
            trainer.strategy.root_device,
            module.num_parameters,
            sum(row.drawing.nfe for row in rows) * math.ceil(n / size / trainer.world_size),
            precision=config["trainer"]["precision"],
            **{name: config[name] if may_choose else False for name in ("channels_last", "compile")},
        )
    except UsageError as error:  # about the precision
        raise UsageError(f"trainer.{error}") from error
    module.compute_as(computing)
    request = Request(
        config,
        {
            "ckpt": fingerprint(run.checkpoint),
            **contents_of_guide(guidance),
            **given.contents,
            **found.contents,
        },
    )
    undecoded = None if is_decoded(module) else latents_of(module)
    if place.request is not None:
        place.request.refuse_another(directory, config, request.contents)
        if images_are_there(directory, config["format"], files):
            if trainer.is_global_zero:
                terminal.say(f"{directory}: holds these {len(files)} images already")
            return None

    def begin() -> None:
        log.info("sampling from %s, step %d, %s", run.checkpoint, run.step, named_weights(run, config))
        if (guide := guide_of(guidance)) is not None:
            log.info("guided by %s, step %d", guide.file, guide.step)
        log.info("%d images at once, computed in %s on %s", size, computing, _devices(trainer))
        request.write(directory)
        if computing.compile:
            log.info(COMPILING)
        if said := seen_said(module):
            log.info("pictures show %s", said.removeprefix("; "))

    def share(sharing: Sharing) -> None:
        if computing.compile:
            keep_compiled(Cache().directory / "compiled")
            module.network.compile()
        if sharing.is_leader and not sharing.in_step:
            steps = sum(row.drawing.steps for row in rows)
            first = rows[0].drawing
            seconds = seconds_to_draw(first, range(n), size) / sharing.world_size * steps / first.steps
            if seconds > WORTH_A_WORD:
                log.info("drawing %d images in %d steps: about %s", len(files), steps, duration(seconds))
        parts = [
            sharing.through(
                row.name, n, size, row.draw,
                title="sampling" if row.t is None else f"sampling, t = {row.t}",
                steps=row.drawing.steps, like=row.like,
            )
            for row in rows
        ]  # fmt: skip
        if not sharing.is_leader:
            return
        shown = np.concatenate([*first_images(parts, MOST_IN_A_GRID)])
        drawn = seen(module, torch.from_numpy(shown).permute(0, 3, 1, 2))
        is_one = len(rows) == 1
        picture = (
            grid_of(module, drawn, given, classes, labels) if is_one else grid(to_uint8(drawn), columns=n)
        )
        write_whole(directory / "grid.png", png(picture))
        if asked.picture is not None:
            picture = asked.drawn([_seen(module, part.together()) for part in parts], given, classes)
            write_whole(directory / asked.picture, png(picture))
        for name, source in given.sources.items():
            write_whole(directory / f"{name}.png", png(to_uint8(source).permute(1, 2, 0).numpy()))
        write_images(
            directory, config["format"], parts, of_all, files, lambda: sharing.progressed(False), undecoded
        )
        terminal.say(str(directory))

    identity = {"the checkpoint": request.contents["ckpt"], **request.texts()}
    return Work("sample.log", "sampling", module, identity, begin, share)


def _seen(module: DDPM, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A row as it is seen."""
    images = torch.from_numpy(arrays["images"]).movedim(-1, -3)
    return {**arrays, "images": seen(module, images).movedim(-3, -1).numpy()}


def _devices(trainer: Trainer) -> str:
    """cpu; cuda:0; 4 devices (cuda)."""
    device = trainer.strategy.root_device
    return str(device) if trainer.world_size == 1 else f"{trainer.world_size} devices ({device.type})"
